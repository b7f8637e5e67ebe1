"""Surrogates of a single prompt, without a model."""

from dataclasses import replace

import pytest

from services.anonymization.domain import Action, AnonymizedPrompt, Labels, Rule
from services.anonymization.handlers import anonymize_prompt
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.prompts import PromptVault, holds
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.surrogates.forms import FAMILY, GIVEN
from services.anonymization.surrogates.surrogates import People, Surrogates
from tailor.errors import InvalidArgument, ResourceExhausted

LABELS = ("wiki", "people", "")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(["ward", "grace", "mark"])


class FakePrompts:
    def anonymize(self, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]) -> AnonymizedPrompt:
        return AnonymizedPrompt(tuple(text.replace("Okafor", "Marsh") for text in texts), {"Marsh": "Okafor"})


def test_refuses_a_prompt_that_is_too_long() -> None:
    texts = ("Ms Okafor",)
    assert anonymize_prompt(FakePrompts(), texts, LABELS, ()).texts == ("Ms Marsh",)
    for wrong in (("x" * 100_001, "x" * 100_000), ("x",) * 1_025):
        with pytest.raises(InvalidArgument) as refused:
            anonymize_prompt(FakePrompts(), wrong[1:], LABELS, wrong[:1])
        assert refused.value.reason == "PROMPT_TOO_LONG"


def test_shows_neither_texts_nor_values_of_a_prompt() -> None:
    assert repr(anonymize_prompt(FakePrompts(), ("Ms Okafor",), LABELS, ())) == "AnonymizedPrompt()"


def test_a_value_has_one_surrogate_in_a_prompt_and_others_in_others(lexicon: Lexicon) -> None:
    drawn = set()
    for number in range(5):
        surrogates = Surrogates(PromptVault(lexicon, ""), lexicon, bytes([number]))
        people = People.of(["Ngozi Okafor"])
        whole = surrogates.person("Ngozi Okafor", "", people)
        assert surrogates.person("Okafor", "Ms", people) == whole.split()[1]
        drawn.add(whole)
    assert len(drawn) > 1


def test_draws_no_plain_word_no_word_beside_the_prompt_and_nothing_twice(lexicon: Lexicon) -> None:
    vault = PromptVault(lexicon, "Ask Marsh.")
    candidates = ["Ward", "Marsh", "Bo", "London", "Okafor", "Pike"]
    assert vault.issue(FAMILY, "okafor", "Okafor", lambda n: candidates[n]) == "Pike"
    assert vault.issue(FAMILY, "okafor", "Okafor", lambda _: "Otherwise") == "Pike"
    assert vault.issue(GIVEN, "ngozi", "NGOZI", lambda n: ["Pike", "Pike-Rhys", "Rhys"][n]) == "Rhys"
    assert vault.words() == {"Pike": "Okafor", "Rhys": "Ngozi"}
    with pytest.raises(ResourceExhausted):
        vault.issue(FAMILY, "hale", "Hale", lambda _: "Grace")


def test_mails_of_one_house_have_surrogates_of_one_house(lexicon: Lexicon) -> None:
    surrogates = Surrogates(PromptVault(lexicon, ""), lexicon, b"k")
    mails = [surrogates.mail(f"{box}@penhaligon.example", People()) for box in ("qa-team", "qa-old", "qa-old2")]
    assert len(set(mails)) == 3 and len({mail.partition("@")[2] for mail in mails}) == 1


def test_reveals_nothing(lexicon: Lexicon) -> None:
    vault = PromptVault(lexicon, "")
    vault.issue(FAMILY, "okafor", "Okafor", lambda _: "Pike")
    assert vault.reveal(FAMILY, "Pike") is None


def test_a_policy_for_prompts_replaces_what_it_would_mask_and_keeps_what_it_keeps() -> None:
    rule = Rule(
        {"department": frozenset({"people"})}, {"PERSON": Action.MASK, "AGE": Action.GENERALISE, "URL": Action.KEEP}
    )
    policy = replace(load_policy(), rules=(rule,)).reversible()
    assert policy.action("SECRET") is Action.SURROGATE
    assert policy.action("MONEY") is Action.KEEP
    assert policy.action("PERSON", LABELS) is Action.SURROGATE
    assert policy.action("AGE", LABELS) is Action.GENERALISE
    assert policy.action("URL", LABELS) is Action.KEEP


def test_finds_whole_words_alone() -> None:
    assert holds("to Ann's and", "Ann") and holds("Ann", "Ann") and holds("a.b@c", "a.b@c")
    assert holds("致Annさん, 7", "Ann") and holds("SN10.7.0.9", "10.7.0.9") and holds("Ann2", "Ann")
    assert not holds("110.7.0.9", "10.7.0.9") and not holds("_Ann", "Ann")
    assert not holds("Annual", "Ann") and not holds("Joann", "Ann") and not holds("ANN", "Ann")


def test_folds_meet(lexicon: Lexicon) -> None:
    vault = PromptVault(lexicon, "José")
    assert vault.issue(FAMILY, "hale", "Hale", lambda n: ["Jose", "Rhys"][n]) == "Rhys"
    assert fold("José") == "jose"
