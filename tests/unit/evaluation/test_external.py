"""External models behind an OpenAI-style endpoint: what they are asked, what fails, and what that does to the evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.evaluation.adapters.chat_endpoint import OpenAiEndpoint
from services.evaluation.baselines.costs import HourPrice, PricePerToken, Prices
from services.evaluation.baselines.external import ExternalLimits, ExternalModel, UnknownModel
from services.evaluation.domain import Answer, HeldOutRow, ModelCost, ModelResult
from tailor.errors import FailedPrecondition, Reason
from tailor.values import SamplingDefaults
from tests.synthesis import Reply, Script, ScriptedEndpoint, scripted
from tests.waiting import wait_until

ROW = HeldOutRow("r1", "report", (), (("user", "Write of Anna Vogel."),), "The ferry.")


@contextmanager
def external(
    script: Script, timeout_seconds: float = 60, **limits: int
) -> Iterator[tuple[ExternalModel, ScriptedEndpoint]]:
    with scripted(script) as server:
        endpoint = OpenAiEndpoint("gpt", server.url, "large", api_key="sk-secret", timeout_seconds=timeout_seconds)
        yield ExternalModel("gpt", endpoint, "Be brief.", ExternalLimits(**limits), sleep=lambda _: None), server


def always(**reply: Any) -> Script:
    return lambda number, body: Reply(**reply)


def test_is_asked_with_guidelines_and_the_sampling_of_the_specialist() -> None:
    with external(always(content="The pier.", usage=(40, 3))) as (model, server):
        answer = model.answer(ROW, SamplingDefaults(temperature=0.5, top_p=0.9, max_tokens=70))
        score = model.score(ROW, ROW.reference)

    assert (answer.text, answer.prompt_tokens, answer.tokens, answer.finished) == ("The pier.", 40, 3, True)
    assert answer.seconds > 0 and score is None
    (body,) = server.requests
    assert body == {
        "model": "large",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write of Anna Vogel."}],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 1,
        "max_tokens": 70,
    }
    assert server.keys == ["Bearer sk-secret"]


def test_without_a_limit_the_endpoint_decides_the_length() -> None:
    with external(always(content="ok")) as (model, server):
        model.answer(ROW, SamplingDefaults())
    assert server.requests[0].keys() == {"model", "messages", "temperature"}


def test_gives_up_options_that_the_endpoint_does_not_take() -> None:
    def script(number: int, body: dict[str, Any]) -> Reply:
        return Reply(status=400, param="max_tokens") if "max_tokens" in body else Reply(content="ok")

    with external(script) as (model, server):
        assert model.answer(ROW, SamplingDefaults(max_tokens=7)).text == "ok"
        model.answer(ROW, SamplingDefaults(max_tokens=7))
    assert [body.get("max_completion_tokens") for body in server.requests] == [None, 7, 7]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"status": 401}, Reason.EXTERNAL_KEY_REFUSED),
        ({"status": 402}, Reason.EXTERNAL_QUOTA),
        ({"status": 403}, Reason.EXTERNAL_KEY_REFUSED),
        ({"status": 404}, Reason.UNKNOWN_EXTERNAL_MODEL),
        ({"status": 429, "code": "insufficient_quota"}, Reason.EXTERNAL_QUOTA),
    ],
)
def test_what_another_attempt_does_not_change_is_said_at_once(reply: dict[str, Any], reason: Reason) -> None:
    with external(always(**reply)) as (model, server), pytest.raises(FailedPrecondition) as caught:
        model.answer(ROW, SamplingDefaults())
    assert (caught.value.reason, len(server.requests)) == (reason, 1)
    assert "gpt" in caught.value.message
    assert not any(secret in str(caught.value) for secret in ("Anna", "sk-secret"))


@pytest.mark.parametrize("reply", [{"status": 500}, {"status": 429, "headers": {"retry-after": "1"}}, {"seconds": 1.0}])
def test_tries_again_and_is_skipped_if_no_attempt_succeeds(reply: dict[str, Any]) -> None:
    timeout_seconds = 0.5 if "seconds" in reply else 60
    with external(always(**reply), timeout_seconds, attempts=3) as (model, server):
        with pytest.raises(FailedPrecondition) as caught:
            model.answer(ROW, SamplingDefaults())
        wait_until(lambda: len(server.requests) >= 3)
    assert "Attempts: 3." in caught.value.message
    assert len(server.requests) == 3


def test_an_attempt_after_a_failure_counts() -> None:
    with external(lambda number, body: Reply(status=503) if number == 0 else Reply(content="ok")) as (model, _):
        assert model.answer(ROW, SamplingDefaults()).text == "ok"


def test_a_few_refused_prompts_count_as_empty_answers_and_many_leave_it_out() -> None:
    with external(always(status=422), max_refusals=2) as (model, _):
        assert [model.answer(ROW, SamplingDefaults()).text for _ in range(2)] == ["", ""]
        with pytest.raises(FailedPrecondition) as caught:
            model.answer(ROW, SamplingDefaults())
    assert (caught.value.reason, model.refused) == (Reason.EXTERNAL_REFUSED, 3)


def test_an_answer_that_was_cut_is_not_finished() -> None:
    with external(always(content="The", finish="length", usage=None)) as (model, _):
        answer = model.answer(ROW, SamplingDefaults(max_tokens=1))
    assert (answer.text, answer.finished, answer.tokens) == ("The", False, 0)


def test_a_model_that_the_settings_do_not_have_is_skipped_with_what_to_do() -> None:
    with pytest.raises(FailedPrecondition, match="TAILOR_EXTERNAL_MODELS"):
        UnknownModel("gpt").prepare()


def test_the_price_of_1000_answers_counts_tokens_or_hours() -> None:
    answers = [Answer("a", seconds=2.0, prompt_tokens=1000, tokens=100), Answer("b", seconds=4.0, prompt_tokens=3000)]
    cost = ModelCost("external:gpt", 2, 3.0, 4.0, 2000.0, 50.0)

    result = ModelResult((*answers, None), (None, None, None))
    prices = Prices({"external:gpt": PricePerToken(3.0, 15.0, "EUR")}, HourPrice(7.2, "USD"))

    tokens = prices.add_to(cost, result, 8)
    hours = prices.add_to(replace(cost, model="few_shot"), result, 2)

    assert [tokens.price_per_1000, tokens.currency] == [pytest.approx(1000 * (2000 * 3 + 50 * 15) / 1e6), "EUR"]
    # Two at a time, three seconds each: 1.5 seconds of the machine per answer.
    assert [hours.price_per_1000, hours.currency] == [pytest.approx(1000 * 1.5 / 3600 * 7.2), "USD"]
    assert Prices().add_to(cost, result, 8) == cost
    assert prices.add_to(cost, ModelResult((None,), (None,)), 8) == cost
