"""The OpenAI-style door, asked by the official client."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from services.inference import handlers
from services.inference.adapters.http import create_app, serve
from services.inference.handlers import Door
from services.synthetic.adapters.teacher import OpenAiTeacher
from tailor.errors import NotFound
from tailor.rpc.auth import CACHE_SECONDS, Authenticator, Caller
from tailor.rpc.identity import Trust
from tests.unit.inference.fakes import World, make_world, served

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
    raise NotFound("UNKNOWN_KEY", "No such key.")


@pytest.fixture
def door() -> Iterator[tuple[World, Door, str]]:
    world, shut = make_world(), Door()
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    stop = threading.Event()
    app = create_app(shut, Authenticator("inference", Trust({}), verify), 16)
    thread = threading.Thread(target=serve, args=(app, "127.0.0.1", port, stop))
    thread.start()
    deadline = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield world, shut, f"http://127.0.0.1:{port}/v1"
    stop.set()
    thread.join(10)


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


def test_errors_have_the_status_that_clients_know(door: tuple[World, Door, str]) -> None:
    world, shut, address = door
    ask = {"model": "base", "messages": MESSAGES}
    with pytest.raises(openai.InternalServerError) as loading:
        client(address).chat.completions.create(**ask)  # type: ignore[call-overload]
    assert loading.value.status_code == 503
    shut.open(world.inference)
    with pytest.raises(openai.AuthenticationError):
        client(address, "tlr_wrong").chat.completions.create(**ask)  # type: ignore[call-overload]
    with pytest.raises(openai.PermissionDeniedError):
        client(address, "tlr_protector").chat.completions.create(**ask)  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError):
        client(address).chat.completions.create(**(ask | {"model": "reports"}))  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError):
        client(address).chat.completions.create(**(ask | {"messages": []}))  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError):
        client(address).chat.completions.create(**(ask | {"n": 2}))  # type: ignore[call-overload]


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
