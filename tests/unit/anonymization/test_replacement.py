"""Applying changes with Presidio's engine."""

from services.anonymization.domain import Action, Change
from services.anonymization.surrogates.replacement import MAX_PIECE_CHARS, apply


def change(start: int, end: int, replacement: str) -> Change:
    return Change(start, end, "PERSON", Action.SURROGATE, replacement)


def test_each_change_has_its_own_replacement() -> None:
    text = "Ngozi Okafor and Ngozi Okafor, Ngozi"
    changes = [change(0, 12, "Ada Byrne"), change(17, 29, "Ada Byrne"), change(31, 36, "Ada")]
    assert apply(text, changes) == "Ada Byrne and Ada Byrne, Ada"


def test_changes_that_touch_stay_apart() -> None:
    assert apply("AbCd", [change(0, 2, "x"), change(2, 4, "yz")]) == "xyz"
    assert apply("Ab Cd", [change(0, 2, "x"), change(3, 5, "yz")]) == "x yz"


def test_a_text_without_changes_is_the_same() -> None:
    assert apply("nothing here", []) == "nothing here" and apply("", []) == ""


def test_a_long_text_is_changed_in_pieces() -> None:
    word, count = "Okafor signs. ", MAX_PIECE_CHARS
    changes = [change(place * len(word), place * len(word) + 6, "Byrne") for place in range(count)]
    assert apply(word * count, changes) == "Byrne signs. " * count
