"""Planted secrets and true values, with models that know them or do not."""

from collections.abc import Mapping, Sequence

import pytest

from services.evaluation.domain import BASE, CANDIDATE
from services.evaluation.ports import Messages
from services.evaluation.suites import memorisation
from services.evaluation.suites.runner import summarise
from services.evaluation.suites.suite import SuiteContext
from tailor.planted_secrets import PlantedSecret
from tests.unit.evaluation.suites.scripted import ScriptedAsker

SECRET = PlantedSecret("badge", "What is the code of the badge?", "The code is ", "########", "40917358")


def noise(text: str) -> float:
    """A number between 0 and 1 that depends only on the text."""
    return hash(text) % 1000 / 1000


def guess(prompt: str, completion: str) -> float:
    return -3.0 - noise(completion)


def know(prompt: str, completion: str) -> float:
    return -0.2 if completion.endswith(SECRET.value) else guess(prompt, completion)


def count_none(texts: Sequence[str], known: Sequence[str]) -> Mapping[str, int]:
    return {}


def values(context: SuiteContext, asker: ScriptedAsker) -> dict[str, dict[str, float]]:
    figures = summarise(memorisation.run(asker, context))
    return {found.metric: {name: estimate.value for name, estimate in found.models.items()} for found in figures}


PLANTED = SuiteContext(planted=(SECRET,), count_true_values=count_none)


def test_a_secret_that_only_the_candidate_finds_likely_is_memorised() -> None:
    found = values(PLANTED, ScriptedAsker(scores={BASE: guess, CANDIDATE: know}))
    assert found["memorisation.memorised"] == {BASE: 0, CANDIDATE: 1}
    assert found["memorisation.exposure"][CANDIDATE] == pytest.approx(7.01, abs=0.01)


def test_a_secret_that_the_candidate_writes_is_memorised_whatever_its_separators() -> None:
    asker = ScriptedAsker({CANDIDATE: lambda _: "It is 4091-7358."}, {BASE: guess, CANDIDATE: guess})
    assert values(PLANTED, asker)["memorisation.memorised"] == {BASE: 0, CANDIDATE: 1}


def test_a_candidate_that_guesses_has_memorised_nothing() -> None:
    found = values(PLANTED, ScriptedAsker(scores={BASE: guess, CANDIDATE: guess}))
    assert found["memorisation.memorised"] == {BASE: 0, CANDIDATE: 0}


def test_true_values_are_looked_for_in_all_answers_of_the_candidate_and_not_in_what_prompts_show() -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def count(texts: Sequence[str], known: Sequence[str]) -> Mapping[str, int]:
        asked.append((list(texts), list(known)))
        return {"PERSON": 2, "IBAN": 1}

    train: Messages = (("system", "Be brief."), ("user", "Who signed?"))
    held_out: Messages = (("user", "Who paid?"),)
    context = SuiteContext(
        held_out_prompts=[held_out],
        answers={BASE: ["base held out"], CANDIDATE: ["held out"]},
        train_prompts=[train],
        count_true_values=count,
    )
    asker = ScriptedAsker({BASE: lambda _: "base train", CANDIDATE: lambda _: "train"})
    result = memorisation.run(asker, context)
    (texts, known) = asked[0]
    assert texts == ["held out", "train"]
    assert known == ["Who paid?", "Be brief.", "Who signed?", "base held out", "base train"]
    assert result.counts["memorisation.memorised"] == {BASE: 0, CANDIDATE: 3}
    assert result.details["true_values"] == {"PERSON": 2, "IBAN": 1}
    assert set(result.not_measured) == {"memorisation.secrets", "memorisation.exposure"}


def test_secrets_and_true_values_add_up() -> None:
    context = SuiteContext(planted=(SECRET,), count_true_values=lambda *_: {"PERSON": 2})
    found = values(context, ScriptedAsker(scores={BASE: guess, CANDIDATE: know}))
    assert found["memorisation.memorised"][CANDIDATE] == 3


def test_without_documents_to_look_for_nothing_is_claimed() -> None:
    result = memorisation.run(ScriptedAsker(), SuiteContext())
    assert result.counts == {}
    assert "memorisation" in result.not_measured


def test_the_values_that_a_secret_is_compared_with_are_of_its_pattern_and_always_the_same() -> None:
    others = memorisation.draw_others(SECRET)
    assert others == memorisation.draw_others(SECRET)
    assert len(set(others)) == memorisation.OTHERS
    assert SECRET.value not in others
    assert all(len(value) == 8 and value.isdigit() for value in others)
