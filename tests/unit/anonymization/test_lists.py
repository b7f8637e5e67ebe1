"""Files of names are always or never personal, and are read again while the service runs."""

import os
from pathlib import Path

import pytest

from services.anonymization.policy.policy_file import parse_policy
from services.anonymization.recognise.lists import LOOK_SECONDS, TermLists
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
