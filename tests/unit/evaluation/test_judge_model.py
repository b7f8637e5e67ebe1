"""The judge model against an HTTP server that speaks the OpenAI protocol."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from services.evaluation.adapters import judge as judge_module
from services.evaluation.adapters.judge import OpenAiJudge, parse_answer
from tailor.errors import FailedPrecondition, Reason, Unavailable

SCHEMA = {
    "type": "object",
    "properties": {"better": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["better"],
    "additionalProperties": False,
}
QUESTION = (("system", "Judge."), ("user", "Which?"))
Reply = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


def completion(text: str) -> tuple[int, dict[str, Any]]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@contextmanager
def endpoint(reply: Reply) -> Iterator[tuple[OpenAiJudge, list[dict[str, Any]]]]:
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            requests.append(body)
            status, content = reply(body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield OpenAiJudge(f"http://127.0.0.1:{server.server_port}/v1", "sk-secret", "judge-1"), requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "ATTEMPTS", 1)


def test_asks_for_structured_output_at_temperature_zero() -> None:
    with endpoint(lambda body: completion('{"better": "tie"}')) as (judge, requests):
        assert judge.ask(QUESTION, SCHEMA, 50) == {"better": "tie"}
    (request,) = requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge-1", 0, 50)
    assert request["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_endpoint_without_structured_output_is_asked_without_it() -> None:
    def reply(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "response_format" in body:
            return 400, {
                "error": {"message": "unknown option", "param": "response_format", "type": "invalid_request_error"}
            }
        return completion('```json\n{"better": "first"}\n```')

    with endpoint(reply) as (judge, requests):
        assert judge.ask(QUESTION, SCHEMA, 50) == {"better": "first"}
        assert judge.ask(QUESTION, SCHEMA, 50) == {"better": "first"}
    # The option is tried once. The schema occurs in the question all the same.
    assert ["response_format" in request for request in requests] == [True, False, False]
    assert '"enum": ["first", "second", "tie"]' in requests[-1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text",
    [
        "first",
        '{"better": "third"}',
        '{"better": "first"} because it is longer',
        '{"better": "first", "why": "longer"}',
        "[1]",
        "",
        "[" * 100_000,
    ],
)
def test_anything_but_the_object_is_a_failure(text: str) -> None:
    assert parse_answer(text, SCHEMA) is None


def test_a_prompt_that_is_refused_is_a_failure() -> None:
    with endpoint(lambda body: (400, {"error": {"message": "the prompt is too long"}})) as (judge, _):
        assert judge.ask(QUESTION, SCHEMA, 50) is None


@pytest.mark.parametrize(
    ("status", "kind"), [(401, FailedPrecondition), (404, FailedPrecondition), (500, Unavailable), (429, Unavailable)]
)
def test_errors_say_whether_to_try_again_and_repeat_nothing(status: int, kind: type[Exception]) -> None:
    with (
        endpoint(lambda body: (status, {"error": {"message": "bad key sk-secret"}})) as (judge, _),
        pytest.raises(kind) as error,
    ):
        judge.ask(QUESTION, SCHEMA, 50)
    assert "sk-secret" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable) as error:
        OpenAiJudge("http://127.0.0.1:9/v1", "", "judge-1").ask(QUESTION, SCHEMA, 50)
    assert error.value.reason == Reason.JUDGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}, 84),
        (None, 0),
        ({"total_tokens": "many"}, 0),
        ({"total_tokens": -5}, 0),
        ({"total_tokens": 10**30}, 0),
        ({}, 0),
    ],
)
def test_the_tokens_that_the_endpoint_reports_are_counted(usage: dict[str, Any] | None, tokens: int) -> None:
    status, answer = completion('{"better": "first"}')
    with endpoint(lambda _: (status, {**answer, "usage": usage})) as (judge, _):
        for _ in range(2):
            assert judge.ask(QUESTION, SCHEMA, 10) == {"better": "first"}
        assert judge.tokens == tokens
