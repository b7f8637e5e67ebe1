"""The OpenAI-style door, asked by the official client."""

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from services.inference import handlers
from services.inference.adapters.http import Address, create_app, serve
from services.inference.adapters.limits import MAX_BODY_BYTES
from services.inference.handlers import Door
from services.synthetic.adapters.teacher import OpenAiTeacher
from tailor.errors import NotFound, Reason, Unavailable
from tailor.rpc.auth import CACHE_SECONDS, Authenticator, Caller
from tailor.rpc.identity import Trust
from tests.unit.inference.fakes import World, make_world, served
from tests.unit.ingestion.tls import make_authority

# Set once the key `tlr_brief` is revoked.
BRIEF = threading.Event()
SERVICE = "tailor.api.inference.v1.InferenceService"


def verify(digest: str) -> Caller:
    known = {
        "tlr_caller": Caller("key", "team", "ROLE_CALLER", frozenset({"memos"}), "key_1"),
        "tlr_protector": Caller("key", "dpo", "ROLE_DATA_PROTECTION", frozenset(), "key_2"),
        "tlr_reader": Caller("key", "list", "ROLE_CALLER", key_id="key_3", methods=frozenset({f"{SERVICE}/Generate"})),
        "tlr_hurried": Caller("key", "batch", "ROLE_CALLER", key_id="key_4", calls_per_minute=2),
    }
    import hashlib

    if hashlib.sha256(b"tlr_brief").hexdigest() == digest and not BRIEF.is_set():
        return Caller("key", "brief", "ROLE_CALLER", key_id="key_5")
    for secret, caller in known.items():
        if hashlib.sha256(secret.encode()).hexdigest() == digest:
            return caller
    raise NotFound(Reason.UNKNOWN_KEY, "No such key.")


@contextmanager
def serving(
    door: Door, certificate: Path | None = None, key: Path | None = None, client_ca: Path | None = None
) -> Iterator[int]:
    """The door on a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    stop = threading.Event()
    app = create_app(door, Authenticator("inference", Trust({}), verify), 16)
    thread = threading.Thread(target=serve, args=(app, Address("127.0.0.1", port, certificate, key, client_ca), stop))
    thread.start()
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield port
    finally:
        stop.set()
        thread.join(10)


@pytest.fixture
def door() -> Iterator[tuple[World, Door, str]]:
    world, shut = make_world(max_concurrent=1, max_queued=0), Door()
    with serving(shut) as port:
        yield world, shut, f"http://127.0.0.1:{port}/v1"


def client(address: str, key: str = "tlr_caller") -> openai.OpenAI:
    return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=10)


MESSAGES = [{"role": "user", "content": "Write it."}]


def test_lists_models_and_answers_once(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    for name in ("memos", "reports"):
        handlers.apply_serving(world.inference, served(name, 1, name))
    asked = client(address)
    assert [model.id for model in asked.models.list()] == ["base", "memos"]
    reply = asked.chat.completions.create(model="memos", messages=MESSAGES, max_tokens=3, temperature=0)  # type: ignore[arg-type]
    assert reply.choices[0].message.content == "word word word "
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None and reply.usage.total_tokens == 5
    assert reply.id == world.kept.drafts[0].draft_id


def test_the_door_serves_as_a_teacher(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    world.engine.context_length = 4096
    world.engine.say = '[{"question": "What changes?", "answer": "The envelope."}]'
    shut.open(world.inference)
    lesson = OpenAiTeacher(address, "tlr_caller", "base").teach("The control envelope changes.")
    assert lesson.pairs == (("What changes?", "The envelope."),)
    assert lesson.tokens > 10
    assert world.kept.drafts[0].draft_id


def test_streams_and_a_client_that_leaves_ends_the_generation(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    asked = client(address)
    whole = asked.chat.completions.create(
        model="base", messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )  # type: ignore[call-overload]
    chunks = list(whole)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "word word word "
    assert chunks[-1].usage.completion_tokens == 3
    broken = asked.chat.completions.create(model="base", messages=MESSAGES, max_tokens=60, stream=True)  # type: ignore[call-overload]
    next(iter(broken))
    world.engine.gate.clear()
    broken.close()
    deadline = time.monotonic() + 5
    while len(world.kept.drafts) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert world.engine.streams[1].cancelled.is_set()


def ask(address: str, key: str = "tlr_caller", **fields: Any) -> Any:
    question: dict[str, Any] = {"model": "base", "messages": MESSAGES, "max_tokens": 3} | fields
    return client(address, key).chat.completions.create(**question)


def test_a_client_that_stops_waiting_ends_the_generation(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    world.engine.gate.clear()
    with pytest.raises(openai.APITimeoutError):
        ask(address, timeout=0.5)
    deadline = time.monotonic() + 5
    while not world.kept.drafts:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert world.kept.drafts[0].finish_reason == "cancelled"
    assert world.engine.streams[0].cancelled.is_set()


def test_the_asynchronous_client_asks_and_streams(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)

    async def both() -> tuple[str, str]:
        async with openai.AsyncOpenAI(base_url=address, api_key="tlr_caller", max_retries=0) as asked:
            question: Any = {"model": "base", "messages": MESSAGES, "max_tokens": 3, "user": "someone", "seed": 0}
            whole = await asked.chat.completions.create(**question)
            stream = await asked.chat.completions.create(**question, stream=True)
            return whole.choices[0].message.content or "", "".join(
                [chunk.choices[0].delta.content or "" async for chunk in stream]
            )

    assert asyncio.run(both()) == ("word word word ", "word word word ")
    assert all(stream.sampling.seed for stream in world.engine.streams)


class Finding(BaseModel):
    grade: Literal["low", "high"]


def test_a_schema_reaches_the_engine_and_comes_back_parsed(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    world.engine.say = '{"grade":"high"}'
    parsed = client(address).chat.completions.parse(model="base", messages=MESSAGES, response_format=Finding)  # type: ignore[arg-type]
    assert parsed.choices[0].message.parsed == Finding(grade="high")
    schema = json.loads(world.engine.streams[0].sampling.schema)
    assert schema["properties"]["grade"]["enum"] == ["low", "high"]
    ask(address, response_format={"type": "json_object"})
    assert json.loads(world.engine.streams[1].sampling.schema) == {"type": "object"}
    ask(address, response_format={"type": "text"})
    assert not world.engine.streams[2].sampling.schema


def test_log_probabilities_come_whole_and_streamed(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    whole = ask(address, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert [(one.token, one.logprob, bytes(one.bytes)) for one in whole] == [("word ", -0.5, b"word ")] * 3
    assert [top.token for top in whole[0].top_logprobs] == ["word ", "verb "]
    chunks = list(ask(address, logprobs=True, stream=True))
    told = [one.logprob for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content]
    assert told == [-0.5] * 3
    assert ask(address).choices[0].logprobs is None


def test_an_error_while_streaming_reaches_the_client(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    world.engine.fails = Unavailable(Reason.ENGINE_FAILED, "The engine could not answer; try again.")
    with pytest.raises(openai.APIError) as caught:
        list(ask(address, stream=True))
    assert caught.value.code == "ENGINE_FAILED"
    with pytest.raises(openai.InternalServerError):
        ask(address)


def test_errors_have_the_status_that_clients_know(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    with pytest.raises(openai.InternalServerError) as loading:
        ask(address)
    assert loading.value.status_code == 503
    shut.open(world.inference)
    with pytest.raises(openai.AuthenticationError):
        ask(address, "tlr_wrong")
    with pytest.raises(openai.PermissionDeniedError):
        ask(address, "tlr_protector")
    with pytest.raises(openai.NotFoundError):
        ask(address, model="reports")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "sampling.temperature"),
        ({"max_tokens": 0}, "sampling.max_tokens"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"modalities": ["text", "audio"]}, "modalities.1"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
        ({"extra_body": {"repetition_penalty": 5}}, "sampling.repetition_penalty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "messages"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_log_probabilities"),
        ({"response_format": {"type": "json_schema"}}, "json_schema"),
        ({"response_format": {"type": "json_object"}, "stop": "}"}, "sampling.stop"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"oneOf": []}}}}, "json_schema"),
    ],
)
def test_what_cannot_be_answered_is_a_bad_request_that_names_the_field(
    door: tuple[World, Door, str], fields: dict[str, Any], param: str
) -> None:
    world, shut, address = door
    shut.open(world.inference)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(address, **fields)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert not world.engine.streams


def test_a_full_queue_says_when_to_come_back(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    world.engine.gate.clear()
    first = ask(address, stream=True)
    with pytest.raises(openai.RateLimitError) as caught:
        ask(address)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    world.engine.gate.set()
    assert len(list(first)) == 5


def test_a_body_over_the_limit_is_refused_told_or_not(door: tuple[World, Door, str]) -> None:
    _, _, address = door
    headers = {"authorization": "Bearer tlr_caller", "content-type": "application/json"}
    large = b"{" + b" " * MAX_BODY_BYTES
    told = httpx.post(f"{address}/chat/completions", content=large, headers=headers)
    untold = httpx.post(f"{address}/chat/completions", content=iter([large]), headers=headers)
    assert [reply.status_code for reply in (told, untold)] == [413, 413]
    assert told.json() == untold.json()
    assert untold.json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{address}/embeddings").json()["error"]["code"] == "NOT_FOUND"


def test_a_model_is_known_by_its_name_to_those_who_may_use_it(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    for name in ("memos", "reports"):
        handlers.apply_serving(world.inference, served(name, 1, name))
    assert client(address).models.retrieve("memos").id == "memos"
    with pytest.raises(openai.NotFoundError):
        client(address).models.retrieve("reports")


def test_the_door_speaks_tls_where_it_has_a_certificate(tmp_path: Path) -> None:
    world, shut = make_world(), Door()
    shut.open(world.inference)
    authority, certificate, key = make_authority(tmp_path, "localhost")
    with serving(shut, certificate, key) as port:
        address = f"https://localhost:{port}/v1"
        with httpx.Client(verify=ssl.create_default_context(cafile=str(authority))) as trusting:
            asked = openai.OpenAI(base_url=address, api_key="tlr_caller", max_retries=0, http_client=trusting)
            assert [model.id for model in asked.models.list()] == ["base"]
        with pytest.raises(openai.APIConnectionError):
            client(address).models.list()


def test_the_door_counts_as_the_methods_behind_it(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    reader = client(address, "tlr_reader")
    ask = {"model": "base", "messages": MESSAGES, "max_tokens": 2}
    assert reader.chat.completions.create(**ask).choices[0].message.content == "word word "  # type: ignore[call-overload]
    with pytest.raises(openai.PermissionDeniedError):
        reader.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
    with pytest.raises(openai.PermissionDeniedError):
        reader.models.list()


def test_the_door_refuses_a_key_that_calls_too_often_and_says_when_to_come_again(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    hurried = client(address, "tlr_hurried")
    for _ in range(2):
        hurried.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        hurried.models.list()
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 30


def test_a_key_that_is_revoked_meanwhile_breaks_its_stream_off(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    shut.open(world.inference)
    living = client(address, "tlr_brief")
    BRIEF.clear()
    stream = living.chat.completions.create(model="base", messages=MESSAGES, max_tokens=60, stream=True)  # type: ignore[call-overload]
    next(iter(stream))
    world.engine.gate.clear()
    BRIEF.set()
    time.sleep(CACHE_SECONDS)
    world.engine.gate.set()
    with pytest.raises((openai.APIError, httpx.RemoteProtocolError)):
        list(stream)
    assert world.engine.streams[0].cancelled.is_set()


def test_a_caller_without_a_certificate_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    shut = Door()
    authority, certificate, key = make_authority(tmp_path, "localhost")
    with serving(shut, certificate, key, client_ca=authority) as port:
        stranger = ssl.create_default_context(cafile=str(authority))
        known = ssl.create_default_context(cafile=str(authority))
        known.load_cert_chain(certificate, key)
        with httpx.Client(verify=known) as asked:
            assert asked.get(f"https://localhost:{port}/v1/models").status_code == 401
        with httpx.Client(verify=stranger) as asked, pytest.raises(httpx.HTTPError):
            asked.get(f"https://localhost:{port}/v1/models")
