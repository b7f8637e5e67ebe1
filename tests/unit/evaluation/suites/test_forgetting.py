"""Forgetting, with models whose loss is known."""

import math

import pytest

from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.suites import forgetting
from services.evaluation.suites.runner import summarise
from services.evaluation.suites.suite import SuiteContext, choose_items, read_items
from tests.unit.evaluation.suites.scripted import ScriptedAsker


def right_answers() -> dict[str, str]:
    """A right answer to each closed question about a fact."""
    facts = (item for item in read_items("instructions") if item.kind == "fact")
    return {item.prompt: item.content["checks"][0]["words"][0] for item in facts}


FACTS = right_answers()


def test_a_candidate_like_the_base_has_lost_nothing() -> None:
    same = {model: lambda prompt: FACTS.get(prompt, "") for model in (BASE, CANDIDATE)}
    result = forgetting.run(ScriptedAsker(same), SuiteContext())
    figures = {found.metric: found for found in summarise(result)}
    assert figures["forgetting.instructions"].models[CANDIDATE].value == len(FACTS) / len(read_items("instructions"))
    assert figures["forgetting.loss"].models[CANDIDATE].value == 0
    assert figures["forgetting.loss"].gains[BASE].low == figures["forgetting.loss"].gains[BASE].high == 0


def test_the_loss_is_the_larger_of_lost_instructions_and_lost_probability_of_text() -> None:
    answers = {BASE: lambda prompt: FACTS.get(prompt, "")}
    lost = len(FACTS) / len(read_items("instructions"))
    for nats, loss in ((0.01, lost), (1.0, 1 - math.exp(-1.0))):
        scores = {BASE: lambda *_: -2.0, CANDIDATE: lambda *_, nats=nats: -2.0 - nats}
        measures = forgetting.run(ScriptedAsker(answers, scores), SuiteContext()).measures
        assert measures["forgetting.loss"].models[CANDIDATE].value() == pytest.approx(loss)
        assert measures["forgetting.loss"].models[BASE].value() == 0
        assert measures["forgetting.text"].models[CANDIDATE].value() == pytest.approx(-2.0 - nats)


def test_a_gain_in_both_is_a_negative_loss() -> None:
    answers = {CANDIDATE: lambda prompt: FACTS.get(prompt, "")}
    scores = {BASE: lambda *_: -2.0, CANDIDATE: lambda *_: -1.5}
    measures = forgetting.run(ScriptedAsker(answers, scores), SuiteContext()).measures
    assert measures["forgetting.loss"].models[CANDIDATE].value() < 0


@pytest.mark.parametrize("limit", [8, 24, 60])
def test_a_limit_bounds_the_items_of_the_suite_and_keeps_all_kinds(limit: int) -> None:
    asker = ScriptedAsker()
    forgetting.run(asker, SuiteContext(max_items=limit))
    assert len(asker.prompts) + asker.scored == 2 * limit


def test_the_choice_of_items_is_fixed_and_even() -> None:
    items = read_items("instructions")
    chosen = choose_items(items, 20)
    assert chosen == choose_items(items[::-1], 20)[::-1]
    kinds = [item.kind for item in chosen]
    assert {kinds.count(kind) for kind in set(kinds)} == {2}
    assert choose_items(items, 0) == list(items)
