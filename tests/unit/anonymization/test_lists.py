"""Names from files, and many phrases found in one pass."""

import os
import random
import re
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from services.anonymization.policy.policy_file import parse_policy
from services.anonymization.recognise.lists import LOOK_SECONDS, TermLists
from services.anonymization.recognise.phrases import MAX_WORDS, NUMBER_GOES_ON, Phrases
from tailor.errors import InvalidArgument

POLICY = b"""
[types]
CLIENT = "surrogate"
[deny]
CLIENT = ["The Blue House", { file = "crm/clients.csv" }]
PERSON = [{ file = "people.txt" }]
[allow]
terms = [{ file = "products.txt" }]
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / "clients.csv").write_text("id,name\n1,Target\n2,Harrow & Lindqvist\n3,blue river holdings\n")
    (tmp_path / "people.txt").write_text("# exported\ngregor herrmann\nJosé Peña\n")
    (tmp_path / "products.txt").write_text("Blue River Holdings Cloud\n")
    return tmp_path


def found(lists: TermLists, text: str) -> list[tuple[str, str]]:
    return [(finding.entity_type, text[finding.start : finding.end]) for finding in lists.search(text)[0]]


def test_finds_names_of_several_words_in_any_capitals_and_single_words_only_with_one(folder: Path) -> None:
    lists = TermLists(folder, parse_policy(POLICY))
    assert found(lists, "ask gregor herrmann or JOSE PENA's team") == [
        ("PERSON", "gregor herrmann"),
        ("PERSON", "JOSE PENA"),
    ]
    assert found(lists, "The target is Target, says Harrow & Lindqvist.") == [
        ("CLIENT", "Target"),
        ("CLIENT", "Harrow & Lindqvist"),
    ]


def test_the_longest_name_counts_so_that_an_allowed_product_stays(folder: Path) -> None:
    lists = TermLists(folder, parse_policy(POLICY))
    text = "Blue River Holdings buys Blue River Holdings Cloud."
    assert found(lists, text) == [("CLIENT", "Blue River Holdings")]
    assert [text[start:end] for start, end in lists.search(text)[1]] == ["Blue River Holdings Cloud"]


def test_a_changed_file_is_read_again(folder: Path) -> None:
    clock = Clock()
    lists = TermLists(folder, parse_policy(POLICY), clock)
    path = folder / "people.txt"
    path.write_text("Mei Lin\n")
    os.utime(path, (1, 1))
    assert found(lists, "Mei Lin") == []
    clock.now = LOOK_SECONDS
    assert found(lists, "Mei Lin and gregor herrmann") == [("PERSON", "Mei Lin")]
    path.unlink()
    clock.now += LOOK_SECONDS
    assert found(lists, "Mei Lin") == [("PERSON", "Mei Lin")]


def test_a_missing_file_and_one_outside_the_folder_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "people.txt").unlink()
    (folder / "products.txt").unlink()
    (folder / "products.txt").symlink_to("/etc/hostname")
    with pytest.raises(InvalidArgument) as refused:
        TermLists(folder, parse_policy(POLICY))
    assert sorted(refused.value.field_violations) == ["allow.terms: products.txt", "deny.PERSON: people.txt"]
    with pytest.raises(InvalidArgument) as refused:
        TermLists(None, parse_policy(POLICY))
    assert "TAILOR_LISTS_DIR" in str(refused.value.field_violations)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a//b", ".hidden", ""])
def test_a_policy_cannot_name_a_file_outside_the_folder(path: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_policy(f'[types]\n[deny]\nCLIENT = [{{ file = "{path}" }}]\n'.encode())
    assert list(refused.value.field_violations) == ["deny.CLIENT[0].file"]


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
