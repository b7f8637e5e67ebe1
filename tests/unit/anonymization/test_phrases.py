"""Phrases are found as by looking for each of them, at the cost of the text's words."""

import random
import re
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from services.anonymization.recognise.phrases import MAX_WORDS, NUMBER_GOES_ON, Phrases

if TYPE_CHECKING:
    from _typeshed import TraceFunction

WORDS = ("St.", "Mary", "Mary-Ann", "(Mary", "Ltd", "1", "1.2", "é", "St", "\n", "  ")


def find_each(text: str, phrases: dict[str, str]) -> list[tuple[int, int, str]]:
    """The same, phrase by phrase."""
    found = {}
    for phrase in sorted(phrases, key=len):
        first = re.search(r"\w+", phrase)
        assert first is not None
        pattern = r"\s+".join(map(re.escape, phrase.split()))
        for start in range(len(text)):
            match = re.compile(pattern).match(text, start)
            word = start + first.start()
            is_whole_word = re.compile(r"(?<!\w)\w+").match(text, word)
            if match is None or is_whole_word is None or is_whole_word[0] != first[0]:
                continue
            last = text[match.end() - 1]
            after = text[match.end() : match.end() + 1]
            if re.match(r"\w", text[start]) and start and re.match(r"\w", text[start - 1]):
                continue
            if re.match(r"\w", last) and re.match(r"\w", after):
                continue
            if last.isdigit() and NUMBER_GOES_ON.match(text, match.end()):
                continue
            found[word] = (start, match.end(), phrases[phrase])
    return [found[word] for word in sorted(found)]


@pytest.mark.parametrize("seed", range(200))
def test_phrases_are_found_as_one_by_one(seed: int) -> None:
    draw = random.Random(seed)
    text = " ".join(draw.choices(WORDS, k=40)) + draw.choice(["", ".5", "x"])
    phrases: dict[str, str] = {}
    for number in range(6):
        phrase = " ".join(" ".join(draw.choices(WORDS, k=draw.randint(1, 4))).split())
        if re.search(r"\w", phrase) and len({*phrases, phrase}) == len({key.lower() for key in (*phrases, phrase)}):
            phrases[phrase] = f"kind {number}"
    assert list(Phrases(phrases).find(text)) == find_each(text, phrases)


def test_the_end_of_a_text_is_no_longer_phrase() -> None:
    assert list(Phrases({"Mary": "PERSON", "Mary-Ann": "PERSON"}).find("Mary")) == [(0, 4, "PERSON")]


def test_many_phrases_of_one_beginning_cost_no_more_than_one() -> None:
    def count(number: int) -> int:
        """Lines that are run for a text of a fixed length and `number` phrases."""
        lines = 0

        def trace(frame: FrameType, event: str, argument: Any) -> "TraceFunction":
            nonlocal lines
            lines += event == "line"
            return trace

        phrases = Phrases({"St. " * length + "Mary": "CLIENT" for length in range(1, number)})
        text = "St. " * 500
        sys.settrace(trace)
        try:
            assert not list(phrases.find(text))
        finally:
            sys.settrace(None)
        return lines

    assert count(500) == count(MAX_WORDS + 1)
