"""The asyncio client against a server in this process."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.client import AsyncTailorClient, Message, Provenance, Usage
from tailor.client.retries import ROUNDS
from tailor.errors import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from tests.fakes.inference import FakeInference
from tests.fakes.serving import ADAPTER, serving
from tests.waiting import wait_until

T = TypeVar("T")
Ask = Callable[[AsyncTailorClient], Awaitable[T]]


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()  # type: ignore[abstract]  # only what the tests call


@pytest.fixture
def address(inference: FakeInference) -> Iterator[str]:
    with serving(inference_pb2_grpc.add_InferenceServiceServicer_to_server, inference) as server_address:
        yield server_address


def run(address: str, ask: Ask[T]) -> T:
    async def work() -> T:
        async with AsyncTailorClient(address, "tlr_test") as client:
            return await ask(client)

    return asyncio.run(work())


async def text(client: AsyncTailorClient, model: str = "base") -> list[str]:
    return [piece.text async for piece in client.stream(model, "hello")]


def test_generates_streams_and_lists(address: str) -> None:
    async def ask(client: AsyncTailorClient) -> None:
        answer = await client.generate("engagement-reports", messages=[Message("user", "hello")])
        assert (answer.text, answer.usage) == ("engagement-reports: hello", Usage(2, 3))
        assert answer.provenance == Provenance("engagement-reports", 3, ADAPTER, "tiny")
        assert "".join(await text(client)) == "base says hello"
        assert [served.name for served in await client.specialists()] == ["engagement-reports"]
        assert (await client.draft("drf_1")).answer == "base: hello"
        assert (await client.report_outcome("drf_1", minutes=25)).outcome_id == "out_1"
        assert (await client.record_feedback("drf_1", "accepted", stars=5)).feedback_id == "fbk_1"

    run(address, ask)


def test_calls_run_concurrently(address: str) -> None:
    async def ask(client: AsyncTailorClient) -> list[str]:
        answers = await asyncio.gather(*[client.generate("base", f"{number}") for number in range(20)])
        return [answer.text for answer in answers]

    assert run(address, ask) == [f"base: {number}" for number in range(20)]


@pytest.mark.parametrize("kind", ["generate", "stream", "specialists"])
def test_retries_while_no_model_is_ready(address: str, inference: FakeInference, kind: str) -> None:
    inference.failures = 1

    async def ask(client: AsyncTailorClient) -> object:
        if kind == "stream":
            return await text(client)
        return await (client.generate("base", "hello") if kind == "generate" else client.specialists())

    assert run(address, ask)


def test_raises_errors_with_their_reasons(address: str, inference: FakeInference) -> None:
    with pytest.raises(NotFound) as raised:
        run(address, lambda client: text(client, "nobody"))
    assert raised.value.reason == "UNKNOWN_SPECIALIST"
    assert inference.calls == 1
    with pytest.raises(InvalidArgument):
        run(address, lambda client: client.generate("base"))


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_closing_or_cancelling_a_stream_stops_the_generation(address: str, inference: FakeInference, how: str) -> None:
    inference.endless = True

    async def ask(client: AsyncTailorClient) -> None:
        stream = client.stream("base", "hello")
        await anext(stream)
        if how == "close":
            await stream.aclose()
        else:
            rest = asyncio.create_task(_drain(stream))
            await asyncio.sleep(0.05)
            rest.cancel()
            await asyncio.gather(rest, return_exceptions=True)
        await asyncio.to_thread(wait_until, lambda: inference.cancelled)

    run(address, ask)


async def _drain(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass


def test_an_absent_replica_fails_no_call(address: str) -> None:
    async def ask(client: AsyncTailorClient) -> None:
        for _ in range(4):
            assert (await client.generate("base", "hello")).text == "base: hello"
            assert "".join(await text(client)) == "base says hello"

    run(f"127.0.0.1:1,{address}", ask)


def test_a_call_gives_up_at_its_deadline(address: str, inference: FakeInference) -> None:
    inference.failures = 2 * ROUNDS
    # A slow machine may notice the deadline during an attempt.
    with pytest.raises((Unavailable, DeadlineExceeded)):
        run(address, lambda client: client.generate("base", "hello", timeout_seconds=0.5))
    # All attempts would take the pauses between them, of 7.6 seconds.
    assert inference.calls < ROUNDS
