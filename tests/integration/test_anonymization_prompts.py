"""Anonymised prompts with the real language model: their own surrogates, stored nowhere."""

import re

import pytest

from bench.gold import read_sample
from services.anonymization.domain import NO_LABELS
from services.anonymization.handlers import anonymize_prompt
from services.anonymization.prompts import EphemeralPromptAnonymizer, contains
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.tokens import tokenise
from services.inference.private_prompts.restore import Restorer, add_spellings
from tailor.errors import InvalidArgument
from tests.analyzers import load_english

pytestmark = pytest.mark.integration

FIRST = """Write to Ms Ngozi Okafor (n.okafor@vanterpool.example, +44 20 7946 0018) about IBAN GB82 WEST 1234 5698 7654 32.
Okafor's file HL-EMP-20417 names Vanterpool Logistics BV, 41 Quarry Lane,
Tarnbridge TB4 2QN. She was born on 3 November 1996. password: hunter2secret!9"""
SECOND = "please remind ngozi, and MS OKAFOR. It was £12,300 in London."
RAW = (
    "Ngozi",
    "Okafor",
    "Vanterpool",
    "7946 0018",
    "WEST 1234",
    "20417",
    "Quarry Lane",
    "3 November 1996",
    "hunter2secret!9",
)


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


@pytest.fixture(scope="module")
def anonymizer(analyzer: Analyzer) -> EphemeralPromptAnonymizer:
    return EphemeralPromptAnonymizer(analyzer)


def test_nothing_personal_remains_in_a_prompt_and_everything_can_be_restored(
    anonymizer: EphemeralPromptAnonymizer,
) -> None:
    prompt = anonymizer.anonymize((FIRST, SECOND), NO_LABELS, ("You are Ward.",))
    left = "\n".join(prompt.texts).casefold()
    assert [raw for raw in RAW if raw.casefold() in left] == []
    assert "£12,300 in London" in prompt.texts[1]
    for text, clean in zip((FIRST, SECOND), prompt.texts, strict=True):
        restorer = Restorer(prompt.pairs)
        assert "".join(part.text for part in [*restorer.add(clean), *restorer.rest()]) == text
    for surrogate in prompt.pairs:
        assert not contains(FIRST + SECOND, surrogate)


@pytest.mark.release
def test_every_text_of_the_sample_is_restored_exactly(anonymizer: EphemeralPromptAnonymizer) -> None:
    for gold in read_sample():
        prompt = anonymizer.anonymize((gold.text,), NO_LABELS, ())
        restorer = Restorer(add_spellings(prompt.pairs, (gold.text,)))
        assert "".join(part.text for part in [*restorer.add(prompt.texts[0]), *restorer.rest()]) == gold.text


def test_a_name_is_the_same_person_in_all_texts_of_a_prompt(anonymizer: EphemeralPromptAnonymizer) -> None:
    prompt = anonymizer.anonymize((FIRST, SECOND), NO_LABELS, ())
    named = re.search(r"Write to Ms (\w+) (\w+) ", prompt.texts[0])
    assert named is not None
    given, family = named.groups()
    assert prompt.texts[1].startswith(f"please remind {given.lower()}, and MS {family.upper()}.")
    assert f"{family}'s file" in prompt.texts[0]
    assert prompt.pairs[given] == "Ngozi" and prompt.pairs[family] == "Okafor"


def test_the_full_stop_after_an_address_ends_its_sentence(anonymizer: EphemeralPromptAnonymizer) -> None:
    texts = ("She lives at 41 Quarry Lane. He does too.", "41 Quarry Lane, please; and 7 Mill Rd., too.")
    prompt = anonymizer.anonymize(texts, NO_LABELS, ())
    assert ". He does too." in prompt.texts[0]
    assert {"41 Quarry Lane", "7 Mill Rd."} <= set(prompt.pairs.values())


def test_prompts_cannot_be_linked_by_their_surrogates(anonymizer: EphemeralPromptAnonymizer) -> None:
    texts = {anonymizer.anonymize((FIRST,), NO_LABELS, ()).texts[0] for _ in range(3)}
    assert len(texts) == 3


def test_a_prompt_leaves_no_word_in_the_process(analyzer: Analyzer, anonymizer: EphemeralPromptAnonymizer) -> None:
    anonymizer.anonymize(("We spoke to Mr Zzyqvarx Quombleton in Kraznograd.",), NO_LABELS, ())
    for_prompts = anonymizer._analyzer
    assert isinstance(for_prompts, Analyzer)
    words, words_of_prompts = (
        next(engine for engine in of._engines if engine.has_model)._model.get_nlp("en").vocab.strings
        for of in (analyzer, for_prompts)
    )
    assert "Quombleton" not in words and "Quombleton" not in words_of_prompts
    assert for_prompts._cache == {}
    assert tokenise.cache_info().currsize == fold.cache_info().currsize == 0
    analyzer.find("We spoke to Mr Zzyqvarx Vombleton in Kraznograd.")
    assert "Vombleton" in words


def test_rejects_a_prompt_that_is_too_long(anonymizer: EphemeralPromptAnonymizer) -> None:
    for texts, beside in ((("x" * 100_000,), ("x" * 100_001,)), (("x",) * 1_024, ("x",))):
        with pytest.raises(InvalidArgument) as refused:
            anonymize_prompt(anonymizer, texts, NO_LABELS, beside)
        assert refused.value.reason == "PROMPT_TOO_LONG"
