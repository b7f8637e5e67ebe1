"""The surrogates of a single prompt, without a model."""

from dataclasses import replace

import pytest

from services.anonymization.domain import Action, AnonymizedPrompt, Rule
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.prompts import PromptIssuer, contains
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.surrogates.forms import FAMILY, GIVEN
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import ResourceExhausted
from tailor.values import Labels

LABELS = Labels("wiki", "people")


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.load(["ward", "grace", "mark"])


def test_a_prompts_repr_shows_neither_texts_nor_values() -> None:
    assert repr(AnonymizedPrompt(("Ms Marsh",), {"Marsh": "Okafor"})) == "AnonymizedPrompt()"


def test_a_value_has_one_surrogate_per_prompt_and_another_in_the_next(lexicon: Lexicon) -> None:
    drawn = set()
    for number in range(5):
        surrogates = Surrogates(PromptIssuer(lexicon, ""), lexicon, bytes([number]))
        people = People.of(["Ngozi Okafor"])
        whole = surrogates.person("Ngozi Okafor", "", people)
        assert surrogates.person("Okafor", "Ms", people) == whole.split()[1]
        drawn.add(whole)
    assert len(drawn) > 1


def test_draws_no_ordinary_word_no_word_beside_the_prompt_and_nothing_twice(lexicon: Lexicon) -> None:
    issuer = PromptIssuer(lexicon, "Ask Marsh.")
    candidates = ["Ward", "Marsh", "Bo", "London", "Okafor", "Pike"]
    assert issuer.issue(FAMILY, "okafor", "Okafor", lambda n: candidates[n]) == "Pike"
    assert issuer.issue(FAMILY, "okafor", "Okafor", lambda _: "Otherwise") == "Pike"
    assert issuer.issue(GIVEN, "ngozi", "NGOZI", lambda n: ["Pike", "Pike-Rhys", "Rhys"][n]) == "Rhys"
    assert issuer.words() == {"Pike": "Okafor", "Rhys": "Ngozi"}
    with pytest.raises(ResourceExhausted):
        issuer.issue(FAMILY, "hale", "Hale", lambda _: "Grace")


def test_mail_addresses_of_one_company_share_their_surrogate_domain(lexicon: Lexicon) -> None:
    surrogates = Surrogates(PromptIssuer(lexicon, ""), lexicon, b"k")
    mails = [surrogates.mail(f"{box}@penhaligon.example", People()) for box in ("qa-team", "qa-old", "qa-old2")]
    assert len(set(mails)) == 3 and len({mail.partition("@")[2] for mail in mails}) == 1


def test_the_policy_for_prompts_replaces_masks_by_surrogates_and_keeps_the_rest() -> None:
    rule = Rule(
        {"department": frozenset({"people"})}, {"PERSON": Action.MASK, "AGE": Action.GENERALISE, "URL": Action.KEEP}
    )
    policy = replace(load_policy(), rules=(rule,)).reversible()
    assert policy.action("SECRET") is Action.SURROGATE
    assert policy.action("MONEY") is Action.KEEP
    assert policy.action("PERSON", LABELS) is Action.SURROGATE
    assert policy.action("AGE", LABELS) is Action.GENERALISE
    assert policy.action("URL", LABELS) is Action.KEEP
    assert policy.action("HEALTH") is Action.KEEP


def test_finds_only_whole_words() -> None:
    assert contains("to Ann's and", "Ann") and contains("Ann", "Ann") and contains("a.b@c", "a.b@c")
    assert contains("致Annさん, 7", "Ann") and contains("SN10.7.0.9", "10.7.0.9") and contains("Ann2", "Ann")
    assert not contains("110.7.0.9", "10.7.0.9") and not contains("_Ann", "Ann")
    assert not contains("Annual", "Ann") and not contains("Joann", "Ann") and not contains("ANN", "Ann")


def test_accents_and_case_do_not_hide_a_word(lexicon: Lexicon) -> None:
    issuer = PromptIssuer(lexicon, "José")
    assert issuer.issue(FAMILY, "hale", "Hale", lambda n: ["Jose", "Rhys"][n]) == "Rhys"
    assert fold("José") == "jose"
