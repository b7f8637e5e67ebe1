"""Restoring values, however the answer is split into pieces."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inference.private_prompts.restore import Restorer, StopTexts, TextPart, add_spellings, cut

PAIRS = {
    "Iwu": "Okafor",
    "Ada": "Ngozi",
    "Ada Iwu": "Ngozi Okafor",
    "A. Iwu": "N. Okafor",
    "Ann": "Bo",
    "ada.iwu@pike.example": "ngozi@firm.example",
    "Pike": "Harrow",
    "Pike Ltd": "Harrow Holdings Ltd",
    "HL-77": 'a "quoted"\nline',
    "10.7.0.9": "192.168.1.17",
}


def restore(text: str, *cuts: int, pairs: dict[str, str] = PAIRS, is_json: bool = False) -> str:
    restorer = Restorer(pairs, is_json=is_json)
    ends = sorted({min(position, len(text)) for position in cuts})
    pieces = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    parts = [part for piece in pieces for part in restorer.add(piece)] + restorer.rest()
    assert "".join(part.model_text for part in parts) == text
    return "".join(part.text for part in parts)


@pytest.mark.parametrize(
    ("text", "restored"),
    [
        ("Dear Ms Iwu, Ada Iwu's file, Iwu’s", "Dear Ms Okafor, Ngozi Okafor's file, Okafor’s"),
        ("Annual Ann, Joann, Ann-led, Ann", "Annual Bo, Joann, Bo-led, Bo"),
        ("Pike Ltd and Pike Ltda", "Harrow Holdings Ltd and Harrow Ltda"),
        ("ada.iwu@pike.example, ada.iwu@pike.examples", "ngozi@firm.example, ada.iwu@pike.examples"),
        ("A. Iwu (Iwu)", "N. Okafor (Okafor)"),
        ("Marsh was never in this prompt", "Marsh was never in this prompt"),
        ("Ada\nIwu", "Ngozi\nOkafor"),
        ("SN10.7.0.9 and 10.7.0.91, 110.7.0.9", "SN192.168.1.17 and 10.7.0.91, 110.7.0.9"),
        ("Iwu2 and 2Iwu, _Iwu", "Okafor2 and 2Okafor, _Iwu"),
        ("致ada.iwu@pike.example謝謝, Iwuさん", "致ngozi@firm.example謝謝, Okaforさん"),
    ],
)
def test_restores_whole_words_the_longest_first(text: str, restored: str) -> None:
    assert restore(text) == restored
    assert restore(text, *range(len(text))) == restored


fragments = st.lists(
    st.one_of(
        st.sampled_from([*PAIRS, *(name[:position] for name in PAIRS for position in range(1, len(name)))]),
        st.sampled_from([" ", ", ", "'s", "\n", "_", "nual", ".", "é"]),
        st.text(string.printable, max_size=3),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(fragments, st.lists(st.integers(0, 80), max_size=8))
def test_any_split_into_pieces_gives_the_same_text(text: str, cuts: list[int]) -> None:
    assert restore(text, *cuts) == restore(text) == restore(text, *range(len(text)))


values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.text(string.ascii_letters + " .-@é", min_size=1, max_size=8).filter(lambda name: name.strip() == name)
unrelated = st.text(" ,;\n", min_size=1, max_size=3)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, values, min_size=1, max_size=5), st.data())
def test_restores_every_surrogate_that_is_a_whole_word(pairs: dict[str, str], data: st.DataObject) -> None:
    # The longest name is restored first, so a name inside another one, such as "a" in "a b", is not a whole word there.
    alone = [name for name in pairs if not any(name != other and other in name for other in pairs)]
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(sorted(pairs)), unrelated), max_size=6))
    chosen = [(name, gap) for name, gap in chosen if name in alone]
    text = "".join(f"{gap};{name};" for name, gap in chosen)
    cuts = data.draw(st.lists(st.integers(0, 60), max_size=6))
    assert restore(text, *cuts, pairs=pairs) == "".join(f"{gap};{pairs[name]};" for name, gap in chosen)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(names, values, min_size=1, max_size=4),
    st.recursive(st.one_of(st.integers(), names, values), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.booleans(),
    st.lists(st.integers(0, 90), max_size=8),
)
def test_json_stays_valid_in_any_split_into_pieces(
    pairs: dict[str, str], content: object, ascii_only: bool, cuts: list[int]
) -> None:
    text = json.dumps({"content": content, "to": [*pairs]}, ensure_ascii=ascii_only)
    restored = restore(text, *cuts, pairs=pairs, is_json=True)
    assert restored == restore(text, pairs=pairs, is_json=True)
    assert isinstance(json.loads(restored), dict)


def test_escapes_values_in_json() -> None:
    text = '{"a":"HL-77","b":"Line\\nIwu","c":"\\u00e8Iwu","d":"\\"Iwu\\"","Iwu":1,"e":"Iw\\u0075"}'
    restored = restore(text, *range(len(text)), is_json=True)
    assert json.loads(restored) == {
        "a": 'a "quoted"\nline',
        "b": "Line\nOkafor",
        "c": "èIwu",
        "d": '"Okafor"',
        "Okafor": 1,
        "e": "Okafor",
    }


def test_restores_only_numbers_outside_json_strings() -> None:
    pairs = {"4711": "1234", "4712": "0815", "true": "Okafor"}
    assert restore('{"a":4711,"b":4712,"c":true}', pairs=pairs, is_json=True) == '{"a":1234,"b":4712,"c":true}'


def test_holds_back_only_the_start_of_a_possible_surrogate() -> None:
    restorer = Restorer(PAIRS)
    assert restorer.add("Dear A") == [TextPart("Dear ", "Dear ")]
    assert restorer.add("pril, I") == [TextPart("April, ", "April, ")]
    assert restorer.add("wu") == []
    assert restorer.add("!") == [TextPart("Iwu", "Okafor"), TextPart("!", "!")]
    assert restorer.add("HL-7") == []
    assert restorer.rest() == [TextPart("HL-7", "HL-7")]


def test_restores_capitalised_surrogates_but_not_common_words() -> None:
    spellings = add_spellings(
        {"Ward": "Okafor", "HL-7x": "HL-2y", "ada@pike.example": "ngo@firm.example"}, ["a WARDEN"]
    )
    assert "WARD" not in spellings and "ward" not in spellings
    spellings = add_spellings(
        {"Ward": "Okafor", "HL-7x": "HL-2y", "ada@pike.example": "ngo@firm.example"}, ["Ms Okafor"]
    )
    assert (
        spellings["WARD"] == "OKAFOR"
        and spellings["hl-7x"] == "hl-2y"
        and spellings["Ada@pike.example"] == "Ngo@firm.example"
    )
    assert "ward" not in spellings
    assert add_spellings({"Iwu": "Okafor", "IWU": "MS OKAFOR"}, [])["IWU"] == "MS OKAFOR"


def test_matches_a_stop_text_against_what_the_caller_gets() -> None:
    stops = StopTexts(["Okafor", "END"])
    assert stops.add([TextPart("to ", "to "), TextPart("Ada", "Ngozi"), TextPart(" E", " E")], is_last=False) == (
        [TextPart("to ", "to "), TextPart("Ada", "Ngozi"), TextPart(" ", " ")],
        False,
    )
    assert stops.add([TextPart("ach ", "ach ")], is_last=False) == (
        [TextPart("E", "E"), TextPart("ach ", "ach ")],
        False,
    )
    assert stops.add([TextPart("Iwu", "Okafor"), TextPart(" more", " more")], is_last=True) == ([], True)


def test_a_stop_text_within_a_value_cuts_the_value() -> None:
    assert StopTexts(["kaf"]).add([TextPart("Ms ", "Ms "), TextPart("Iwu", "Okafor")], is_last=True) == (
        [TextPart("Ms ", "Ms "), TextPart("Iwu", "O")],
        True,
    )
    assert cut([TextPart("Iwu", "Okafor"), TextPart(".", ".")], 3) == (
        [TextPart("Iwu", "Oka")],
        [TextPart("", "for"), TextPart(".", ".")],
    )


@settings(max_examples=200, deadline=None)
@given(st.text("abEND", max_size=20), st.lists(st.integers(0, 20), max_size=5), st.sampled_from(["END", "bE", "aa"]))
def test_stops_at_the_same_place_in_any_split_into_pieces(text: str, cuts: list[int], stop: str) -> None:
    stops, restored, ends = StopTexts([stop]), "", sorted({min(position, len(text)) for position in cuts})
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        parts, stopped = stops.add([TextPart(text[start:end], text[start:end])], is_last=end == len(text))
        restored += "".join(part.text for part in parts)
        if stopped:
            break
    assert restored == text.split(stop, maxsplit=1)[0]
