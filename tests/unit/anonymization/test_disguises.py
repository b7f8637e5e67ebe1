"""Values in disguise are read as what they are, and found at their places in the text as it was given."""

import base64

import pytest

from services.anonymization.recognise.disguises import undo
from services.anonymization.recognise.recognisers.secrets import SecretRecogniser


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("Ms Mackel\u00advey-Strand signs", "Ms Mackelvey-Strand signs"),
        ("Grin\u200cdel\u200dwald signs", "Grindelwald signs"),
        ("\u202aGrindelwald\u202c", "Grindelwald"),
        ("Finchley &amp; Sons, F&#105;nchl&#101;y", "Finchley & Sons, Finchley"),
        ("Fin&shy;chley", "Finchley"),
        ("a&#64;b.org", "a@b.org"),
        ("ｆｏｏ＠ｂａｒ．ｏｒｇ and ０７７００", "foo@bar.org and 07700"),
        ("Tre\ufb01nov", "Trefinov"),
        ("P\u0430ul \u041ekafor", "Paul Okafor"),
        ("Trevelyan-\nLinebreak", "Trevelyan-Linebreak"),
        ("Mackel-\n  vey", "Mackelvey"),
        ("> Mackel-\n> vey", "> Mackelvey"),
        ("Jose\u0301 Mu\u0308ller", "José Müller"),
        (r"Ms Okafor\n12 High Street\nLeeds", "Ms Okafor \n12 High Street \nLeeds"),
    ],
)
def test_reads_values_in_disguise(given: str, plain: str) -> None:
    assert undo(given).text == plain


@pytest.mark.parametrize(
    "text",
    [
        "Ms Okafor pays £12 – twice…",
        "",
        "Москва и Ольга",
        "Ελλάδα",
        "R&D & co; a < b",
        "well-known",
        "C:\\new\\table",
        "½ ™ ²",
    ],
)
def test_leaves_other_texts_as_they_are(text: str) -> None:
    plain = undo(text)
    assert plain.text == text and plain.place(0, 1) == (0, 1)


@pytest.mark.parametrize(
    "name", ["Mackel\u00advey", "F&#105;nchley", "Grin\u200cdel\u200dwald", "Tre\ufb01nov", "Jose\u0301"]
)
def test_a_finding_covers_the_whole_disguise(name: str) -> None:
    given = f"Ask {name} today"
    plain = undo(given)
    start = plain.text.index(" ") + 1
    first, last = plain.place(start, plain.text.index(" today"))
    assert given[first:last] == name


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (f"id {base64.b64encode(b'hermione.b@example.org').decode()} end", "SECRET", None),
        ("see f.mackelvey%40canary.org now", "SECRET", "f.mackelvey%40canary.org"),
        (
            "write hermione.blackthorn AT obfuscanary DOT org please",
            "EMAIL_ADDRESS",
            "hermione.blackthorn AT obfuscanary DOT org",
        ),
        ("write h.b [at] canary [dot] org please", "EMAIL_ADDRESS", "h.b [at] canary [dot] org"),
        ("ring 0 7 7 0 0 9 0 0 4 1 8 today", "PHONE_NUMBER", "0 7 7 0 0 9 0 0 4 1 8"),
        (
            "ring oh seven seven double zero nine zero zero four today",
            "SECRET",
            "oh seven seven double zero nine zero zero four",
        ),
    ],
)
def test_finds_values_that_are_spelled_out_or_encoded(text: str, kind: str, value: str | None) -> None:
    findings = SecretRecogniser().find(text)
    assert [(finding.entity_type, text[finding.start : finding.end]) for finding in findings] == [
        (kind, value or text.split()[1])
    ]


@pytest.mark.parametrize(
    "text", ["deadbeefdeadbeefdeadbeefdeadbeef", "we met at noon at the dot", "1 2 3 4 5", "one two three"]
)
def test_ignores_other_codes_and_counts(text: str) -> None:
    assert SecretRecogniser().find(text) == []
