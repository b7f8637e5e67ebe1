"""A teacher or judge against a small OpenAI-style server: what each outcome is, and that no key or text gets into an error."""

from typing import Any

import pytest

from services.synthetic.adapters.teacher import OpenAiModel
from services.synthetic.bootstrap import open_models
from services.synthetic.ports import LostAnswer
from services.synthetic.settings import Settings
from services.synthetic.synthesis_domain import Completion, TokenCount
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, ResourceExhausted, TailorError, Unavailable
from tests.synthesis import Reply, ScriptedEndpoint, scripted

pytestmark = pytest.mark.integration

CHAT = (("system", "Write."), ("user", "A secret passage."))
SCHEMA: dict[str, object] = {"type": "object"}


def complete(endpoint: ScriptedEndpoint, seconds: float = 30) -> Completion:
    model = OpenAiModel(endpoint.url, "sk-secret", "wise", timeout_seconds=seconds)
    return model.complete(CHAT, max_tokens=99, temperature=0.5, schema=SCHEMA)


def test_sends_the_chat_with_limits_and_schema_and_returns_text_and_usage() -> None:
    with scripted(lambda number, body: Reply("Fine.", usage=(30, 12))) as endpoint:
        assert complete(endpoint) == Completion("Fine.", TokenCount(30, 12), "stop")
    (request,) = endpoint.requests
    assert request["messages"] == [{"role": role, "content": content} for role, content in CHAT]
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("wise", 99, 0.5)
    assert request["response_format"]["json_schema"]["schema"] == SCHEMA
    assert endpoint.keys == ["Bearer sk-secret"]


def test_the_call_goes_through_the_proxy_of_the_settings() -> None:
    with scripted(lambda number, body: Reply("Fine.")) as proxy:
        address = proxy.url.removesuffix("/v1")
        settings = Settings(
            teacher_base_url="http://teacher.invalid/v1",
            teacher_model="wise",
            judge_base_url="http://judge.invalid/v1",
            judge_model="strict",
            teacher_proxy=address,
        )
        for model in open_models(settings):
            assert (
                model is not None and model.complete(CHAT, max_tokens=9, temperature=0.0, schema=SCHEMA).text == "Fine."
            )
    assert proxy.paths == [f"http://{host}.invalid/v1/chat/completions" for host in ("teacher", "judge")]


def test_a_proxy_that_does_not_pass_the_call_has_sent_nothing() -> None:
    # This server knows no CONNECT.
    with scripted(lambda number, body: Reply("Fine.")) as proxy:
        model = OpenAiModel("https://teacher.invalid/v1", "sk-secret", "wise", proxy=proxy.url.removesuffix("/v1"))
        with pytest.raises(Unavailable, match="TAILOR_TEACHER_PROXY"):
            model.complete(CHAT, max_tokens=9, temperature=0.0, schema=SCHEMA)
    assert proxy.paths == []


def test_no_usage_is_none() -> None:
    with scripted(lambda number, body: Reply("Fine.", usage=None)) as endpoint:
        assert complete(endpoint).tokens is None


@pytest.mark.parametrize(
    ("reply", "kind", "reason"),
    [
        (Reply(status=400), InvalidArgument, Reason.TEACHER_REFUSED),
        (Reply(status=422), InvalidArgument, Reason.TEACHER_REFUSED),
        (Reply(status=401), FailedPrecondition, Reason.TEACHER_KEY_REFUSED),
        (Reply(status=403), FailedPrecondition, Reason.TEACHER_KEY_REFUSED),
        (Reply(status=404), FailedPrecondition, Reason.TEACHER_UNKNOWN_MODEL),
        (Reply(status=429, code="insufficient_quota"), FailedPrecondition, Reason.TEACHER_QUOTA),
        (Reply(status=429), ResourceExhausted, Reason.TEACHER_BUSY),
        (Reply(status=500), Unavailable, Reason.TEACHER_UNAVAILABLE),
        (Reply(status=503), Unavailable, Reason.TEACHER_UNAVAILABLE),
        # A gateway that gave up does not say whether the model answered.
        (Reply(status=502), LostAnswer, Reason.TEACHER_UNAVAILABLE),
        (Reply(status=504), LostAnswer, Reason.TEACHER_UNAVAILABLE),
        (Reply("Late.", seconds=1.0), LostAnswer, Reason.TEACHER_TIMEOUT),
    ],
)
def test_each_failure_says_what_to_do(reply: Reply, kind: type[TailorError], reason: Reason) -> None:
    with scripted(lambda number, body: reply) as endpoint, pytest.raises(kind) as raised:
        complete(endpoint, seconds=0.3 if reply.seconds else 30)
    assert raised.value.reason == reason
    for secret in ("sk-secret", "secret passage"):
        assert secret not in str(raised.value) and raised.value.__cause__ is None


def test_tells_how_long_to_wait() -> None:
    busy = Reply(status=429, headers={"retry-after": "7"})
    with scripted(lambda number, body: busy) as endpoint, pytest.raises(ResourceExhausted) as raised:
        complete(endpoint)
    assert raised.value.retry_after_seconds == 7.0


def test_nothing_listens_was_not_billed() -> None:
    with pytest.raises(Unavailable, match="TEACHER_UNAVAILABLE"):
        OpenAiModel("http://127.0.0.1:9/v1", "k", "wise").complete(CHAT, max_tokens=9, temperature=0, schema=SCHEMA)


def test_gives_up_options_that_the_endpoint_does_not_take() -> None:
    def picky(number: int, body: dict[str, Any]) -> Reply:
        for name in ("max_tokens", "temperature", "response_format"):
            if name in body:
                return Reply(status=400, param=name)
        return Reply("Fine.")

    with scripted(picky) as endpoint:
        model = OpenAiModel(endpoint.url, "k", "wise")
        for _ in range(2):
            assert model.complete(CHAT, max_tokens=9, temperature=0.5, schema=SCHEMA).text == "Fine."
    # Three refusals, then one request per answer.
    assert len(endpoint.requests) == 5 and endpoint.requests[-1]["max_completion_tokens"] == 9
