"""The client against a server in this process."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from tailor.api.inference.v1 import inference_pb2_grpc
from tailor.client import AsyncTailorClient, Message, Provenance, TailorClient, Tls, Usage, retries
from tailor.errors import InvalidArgument, NotFound, Unauthenticated, Unavailable
from tests.fakes.inference import FakeInference
from tests.fakes.serving import ADAPTER, serving
from tests.unit.ingestion.tls import make_authority
from tests.waiting import wait_until


@pytest.fixture
def inference() -> FakeInference:
    return FakeInference()  # type: ignore[abstract]  # only what the tests call


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another almost at once. `test_retries.py` has the real pauses, on a fake clock."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def client(inference: FakeInference) -> Iterator[TailorClient]:
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    with serving(add, inference) as address, TailorClient(address, "tlr_test") as opened:
        yield opened


def test_generates_a_whole_answer(client: TailorClient) -> None:
    answer = client.generate("engagement-reports", "hello")

    assert (answer.text, answer.draft_id, answer.finish_reason) == ("engagement-reports: hello", "drf_1", "stop")
    assert answer.usage == Usage(prompt_tokens=2, completion_tokens=3)
    assert answer.provenance == Provenance("engagement-reports", 3, ADAPTER, "tiny")


def test_takes_the_messages_of_a_chat(client: TailorClient) -> None:
    messages = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]

    assert client.generate("base", messages=messages).text == "base: three"


@pytest.mark.parametrize("beyond", [{"seed": 2**70}, {"max_tokens": 2**40}, {"stop": ["\ud800"]}])
def test_refuses_values_that_cannot_be_sent(client: TailorClient, beyond: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        client.generate("base", "hello", **beyond)


def test_streams_pieces_and_ends_with_the_provenance(client: TailorClient) -> None:
    pieces = list(client.stream("base", "hello"))

    assert "".join(piece.text for piece in pieces) == "base says hello"
    assert [piece.finish_reason for piece in pieces] == ["", "", "", "stop"]
    assert pieces[0].usage is None
    assert pieces[-1].provenance == Provenance("", 0, "", "tiny")


def test_records_feedback_on_a_draft(client: TailorClient, inference: FakeInference) -> None:
    receipt = client.record_feedback("drf_1", "edited", edited_text="Better.", stars=4, comment="Shorter.")

    assert (receipt.feedback_id, receipt.edited_text_stored) == ("fbk_1", True)
    (said,) = inference.feedback
    assert (said.verdict, said.edited_text, said.stars, said.comment) == (2, "Better.", 4, "Shorter.")
    with pytest.raises(NotFound):
        client.record_feedback("drf_2", "accepted")


def test_reports_what_a_draft_was_worth_and_what_work_without_one_takes(
    client: TailorClient, inference: FakeInference
) -> None:
    receipt = client.report_outcome("drf_1", minutes=25, satisfaction=4)
    baseline = client.report_outcome(specialist="engagement-reports", minutes=90)

    assert (receipt.outcome_id, receipt.generation, baseline.generation) == ("out_1", 3, 0)
    first, second = inference.outcomes
    assert (first.draft_id, first.minutes, first.satisfaction) == ("drf_1", 25, 4)
    assert (second.specialist, second.minutes, bool(second.request_id)) == ("engagement-reports", 90, True)
    with pytest.raises(NotFound):
        client.report_outcome("drf_2", minutes=1)
    with pytest.raises(InvalidArgument):
        client.report_outcome("drf_1", satisfaction=2**40)


@pytest.mark.parametrize("wrong", [{"verdict": "meh"}, {"verdict": "edited", "edited_text": "\ud800"}])
def test_feedback_that_cannot_be_sent_is_refused(client: TailorClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        client.record_feedback("drf_1", **wrong)


def test_closing_a_stream_stops_the_generation(client: TailorClient, inference: FakeInference) -> None:
    inference.endless = True
    stream = client.stream("base", "hello")
    next(stream)

    stream.close()

    wait_until(lambda: inference.cancelled)


def test_retries_while_no_model_is_ready(client: TailorClient, inference: FakeInference) -> None:
    inference.failures = 2

    assert client.generate("base", "hello").text == "base: hello"
    assert inference.calls == 3


def test_a_retry_has_the_request_id_of_the_first_attempt_and_another_call_has_another(
    client: TailorClient, inference: FakeInference
) -> None:
    inference.failures = 2
    client.generate("engagement-reports", "Write.")
    client.generate("engagement-reports", "Write.")
    list(client.stream("engagement-reports", "Write."))
    client.generate("engagement-reports", "Write.", request_id="memo-7")
    ids = [getattr(asked, "request", asked).request_id for asked in inference.asked]
    assert len(set(ids[:3])) == 1 and len(set(ids)) == 4
    assert all(ids) and ids[-1] == "memo-7"


def test_retries_what_a_stopping_replica_did_not_begin(client: TailorClient, inference: FakeInference) -> None:
    inference.stops = 1
    assert client.generate("base", "hello").text == "base: hello"
    inference.stops = 1
    assert len(list(client.stream("base", "hello"))) == 4


def test_a_call_that_its_own_client_cancels_is_not_retried(client: TailorClient, inference: FakeInference) -> None:
    inference.endless = True
    stream = client.stream("base", "hello")
    next(stream)
    client.close()
    with pytest.raises(Unavailable) as raised:
        list(stream)
    assert raised.value.reason == "SERVICE_FAILED"
    assert inference.calls == 1


def test_a_stream_is_retried_before_its_first_piece(client: TailorClient, inference: FakeInference) -> None:
    inference.failures = 1

    assert len(list(client.stream("base", "hello"))) == 4


@pytest.mark.usefixtures("short_pauses")
def test_gives_up_after_five_attempts(client: TailorClient, inference: FakeInference) -> None:
    inference.failures = 99

    with pytest.raises(Unavailable) as raised:
        client.generate("base", "hello")
    assert raised.value.reason == "NO_MODEL"
    assert inference.calls == 5


def test_an_unknown_specialist_is_not_retried(client: TailorClient, inference: FakeInference) -> None:
    with pytest.raises(NotFound) as raised:
        list(client.stream("nobody", "hello"))
    assert raised.value.reason == "UNKNOWN_SPECIALIST"
    assert inference.calls == 1


def test_refuses_a_prompt_together_with_messages(client: TailorClient, inference: FakeInference) -> None:
    with pytest.raises(InvalidArgument):
        client.generate("base", "hello", messages=[Message("user", "hello")])
    with pytest.raises(InvalidArgument):
        client.stream("base")
    assert inference.calls == 0


def test_lists_the_specialists_of_the_key(client: TailorClient) -> None:
    (served,) = client.specialists()

    assert (served.name, served.provenance.generation, served.context_length) == ("engagement-reports", 3, 2048)


def test_sends_all_options(client: TailorClient, inference: FakeInference) -> None:
    schema = {"type": "object"}
    client.generate(
        "base",
        "hello",
        temperature=0.5,
        seed=7,
        max_tokens=9,
        stop=["."],
        json_schema=schema,
        log_probabilities=True,
        top_log_probabilities=2,
    )
    client.generate("base", "hello", json_schema='{"type": "string"}')

    first, second = inference.asked
    assert (first.sampling.temperature, first.sampling.seed, first.sampling.max_tokens) == (0.5, 7, 9)
    assert (list(first.sampling.stop), json.loads(first.json_schema)) == (["."], schema)
    assert (first.log_probabilities, first.top_log_probabilities) == (True, 2)
    assert second.json_schema == '{"type": "string"}'
    assert second.sampling.max_tokens == 0


def test_an_absent_replica_fails_no_call(inference: FakeInference) -> None:
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    with serving(add, inference) as address, TailorClient(["127.0.0.1:1", address], "tlr_test") as client:
        for _ in range(4):
            assert client.generate("base", "hello").text == "base: hello"
            assert len(list(client.stream("base", "hello"))) == 4


def test_takes_the_key_from_the_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAILOR_API_KEY", raising=False)
    with pytest.raises(Unauthenticated):
        TailorClient("127.0.0.1:1")
    monkeypatch.setenv("TAILOR_API_KEY", "tlr_test")
    TailorClient("127.0.0.1:1").close()
    with pytest.raises(InvalidArgument):
        TailorClient([])


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("asynchronous", [False, True])
def test_server_and_client_verify_each_other_by_the_given_authority(
    inference: FakeInference, tmp_path: Path, asynchronous: bool
) -> None:
    authority, certificate, key = make_authority(tmp_path, "localhost")
    server = grpc.server(ThreadPoolExecutor(4))
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, server)
    pair = (key.read_bytes(), certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.read_bytes(), require_client_auth=True)
    address = f"localhost:{server.add_secure_port('localhost:0', credentials)}"
    server.start()

    async def ask(tls: Tls, seconds: float) -> str:
        async with AsyncTailorClient(address, "tlr_test", tls) as client:
            return (await client.generate("base", "hello", timeout_seconds=seconds)).text

    def generate(tls: Tls, seconds: float) -> str:
        if asynchronous:
            return asyncio.run(ask(tls, seconds))
        with TailorClient(address, "tlr_test", tls) as client:
            return client.generate("base", "hello", timeout_seconds=seconds).text

    assert generate(Tls(authority.read_bytes(), certificate.read_bytes(), key.read_bytes()), 10) == "base: hello"
    for wrong in (Tls(authority.read_bytes()), Tls()):
        with pytest.raises(Unavailable):
            generate(wrong, 60)
    server.stop(0)


def test_looks_up_a_draft(client: TailorClient) -> None:
    draft = client.draft("drf_1")

    assert (draft.text, draft.messages, draft.answer) == ("kept", (Message("user", "hello"),), "base: hello")
    assert (draft.usage, draft.provenance.base, draft.create_time.timestamp()) == (Usage(2, 3), "tiny", 1_700_000_000)
    with pytest.raises(NotFound):
        client.draft("drf_2")
