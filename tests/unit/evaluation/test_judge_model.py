"""The judge model against an HTTP server that speaks the OpenAI protocol."""

from typing import Any

import pytest

from services.evaluation.adapters import judge as judge_module
from services.evaluation.adapters.judge import OpenAiJudge, parse_answer
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tests.synthesis import Reply, ScriptedEndpoint, scripted

SCHEMA = {
    "type": "object",
    "properties": {"better": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["better"],
    "additionalProperties": False,
}
QUESTION = (("system", "Judge."), ("user", "Which?"))


def judge_at(endpoint: ScriptedEndpoint) -> OpenAiJudge:
    return OpenAiJudge(endpoint.url, "sk-secret", "judge-1")


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "ATTEMPTS", 1)


def test_asks_for_structured_output_at_temperature_zero() -> None:
    with scripted(lambda number, body: Reply('{"better": "tie"}')) as endpoint:
        assert judge_at(endpoint).ask(QUESTION, SCHEMA, 50) == {"better": "tie"}
    (request,) = endpoint.requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("judge-1", 0, 50)
    assert request["response_format"]["json_schema"]["schema"] == SCHEMA


def test_an_endpoint_without_structured_output_is_asked_without_it() -> None:
    def reply(number: int, body: dict[str, Any]) -> Reply:
        is_refused = "response_format" in body
        return Reply(status=400, param="response_format") if is_refused else Reply('```json\n{"better": "first"}\n```')

    with scripted(reply) as endpoint:
        judge = judge_at(endpoint)
        assert [judge.ask(QUESTION, SCHEMA, 50) for _ in range(2)] == [{"better": "first"}] * 2
    # The option is tried once. The schema occurs in the question all the same.
    assert ["response_format" in request for request in endpoint.requests] == [True, False, False]
    assert '"enum": ["first", "second", "tie"]' in endpoint.requests[-1]["messages"][-1]["content"]


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
    with scripted(lambda number, body: Reply(status=400, error="the prompt is too long")) as endpoint:
        assert judge_at(endpoint).ask(QUESTION, SCHEMA, 50) is None


@pytest.mark.parametrize(
    ("status", "kind"), [(401, FailedPrecondition), (404, FailedPrecondition), (500, Unavailable), (429, Unavailable)]
)
def test_errors_say_whether_to_try_again_and_repeat_nothing(status: int, kind: type[Exception]) -> None:
    with (
        scripted(lambda number, body: Reply(status=status, error="bad key sk-secret")) as endpoint,
        pytest.raises(kind) as error,
    ):
        judge_at(endpoint).ask(QUESTION, SCHEMA, 50)
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
    with scripted(lambda number, body: Reply('{"better": "first"}', usage=usage)) as endpoint:
        judge = judge_at(endpoint)
        for _ in range(2):
            assert judge.ask(QUESTION, SCHEMA, 10) == {"better": "first"}
        assert judge.tokens == tokens
