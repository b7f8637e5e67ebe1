"""The OpenAI-style HTTP API, called by other clients than the official one."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException

from services.inference.generation import ReadinessGate
from services.inference.web.http import create_app
from services.inference.web.middleware import LimitedBody
from tailor.rpc.auth import Authenticator
from tailor.rpc.identity import Trust
from tests.unit.inference.fakes import World, forwarder, make_world
from tests.unit.inference.test_http import verify

SHAPE = {"message", "type", "param", "code"}
JSON = {"content-type": "application/json"}


@pytest.fixture
def asked() -> Iterator[tuple[World, TestClient]]:
    world, gate = make_world(), ReadinessGate()
    gate.open(world.inference)
    app = create_app(gate, Authenticator("inference", Trust({}), verify), forwarder(), 16)
    headers = {"authorization": "Bearer tlr_caller"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield world, client


def question(content: str = '"Write it."', more: str = "") -> bytes:
    return (
        f'{{"model": "base", "messages": [{{"role": "user", "content": {content}}}], "max_tokens": 2{more}}}'.encode()
    )


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"model":', JSON),
        (b"", JSON),
        (b"[]", JSON),
        (b"null", JSON),
        (b'{"model": "\xff"}', JSON),
        (b"[" * 100_000, JSON),
        (question(more=f', "max_tokens": {"9" * 5000}'), JSON),
        (question(), {"content-type": "text/plain"}),
        (question(), {}),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}),
    ],
)
def test_refuses_a_body_that_is_not_a_json_object(
    asked: tuple[World, TestClient], body: bytes, headers: dict[str, str]
) -> None:
    reply = asked[1].post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert set(error) == SHAPE and error["param"] is None
    assert "application/json" in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (question(r'"half \ud800"'), "messages[0].content"),
        (question(r'[{"type": "text", "text": "half \ud800"}]'), "messages[0].content"),
        (question(more=r', "stop": "\ud800"'), "stop"),
        (
            question(
                more=r', "response_format": {"type": "json_schema", "json_schema": {"schema": {"const": "\ud800"}}}'
            ),
            "response_format.json_schema",
        ),
        (question(more=', "temperature": NaN'), "temperature"),
        (question(more=', "top_p": -Infinity'), "top_p"),
    ],
)
def test_names_the_field_of_text_that_is_not_unicode_and_of_numbers_that_are_not_finite(
    asked: tuple[World, TestClient], body: bytes, param: str
) -> None:
    world, client = asked
    reply = client.post("/v1/chat/completions", content=body, headers=JSON)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert not world.engine.streams


def test_accepts_characters_beyond_the_basic_plane_and_control_characters(
    asked: tuple[World, TestClient],
) -> None:
    world, client = asked
    reply = client.post("/v1/chat/completions", content=question(r'"\ud83d\ude00 \u0000 \u202e"'), headers=JSON)
    assert reply.status_code == 200
    assert world.engine.encoded[0][0].content == "\U0001f600 \0 \u202e"


def test_ignores_fields_that_change_nothing_and_supports_a_repetition_penalty(
    asked: tuple[World, TestClient],
) -> None:
    world, client = asked
    more = ', "user": "x", "store": false, "tools": [], "tool_choice": "none", "modalities": ["text"], "repetition_penalty": 1.2'
    assert client.post("/v1/chat/completions", content=question(more=more), headers=JSON).status_code == 200
    assert world.engine.streams[0].sampling.repetition_penalty == 1.2


def test_an_unexpected_error_has_openais_shape_and_leaks_nothing(
    asked: tuple[World, TestClient], capsys: pytest.CaptureFixture[str]
) -> None:
    world, client = asked
    world.engine.fails = RuntimeError("a secret of the prompt")  # type: ignore[assignment]
    reply = client.post("/v1/chat/completions", content=question(), headers=JSON)
    assert reply.status_code == 500
    assert set(reply.json()["error"]) == SHAPE and reply.json()["error"]["type"] == "server_error"
    output = capsys.readouterr()
    assert "RuntimeError" in output.out + output.err
    assert "secret" not in reply.text + output.out + output.err


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "GET"])
def test_other_methods_are_not_allowed(asked: tuple[World, TestClient], method: str) -> None:
    reply = asked[1].request(method, "/v1/chat/completions")
    assert reply.status_code == 405
    assert method == "HEAD" or reply.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


def test_gives_up_on_a_slow_body_but_not_on_a_client_that_waits_for_its_answer() -> None:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def reads(_: object, limited: Any, __: object) -> None:
        while (await limited())["type"] != "http.disconnect":
            pass

    body = LimitedBody(reads, body_seconds=0.05)
    with pytest.raises(HTTPException) as slow:
        asyncio.run(body({}, receive, None))
    assert slow.value.status_code == 408
    messages[:] = [{"type": "http.request", "body": b"{}", "more_body": False}]
    asyncio.run(body({}, receive, None))
