"""Values in disguise are read as what they are, and found at their places in the text as it was given."""

import base64
import time
from datetime import date

import pytest

from services.anonymization.recognise.obfuscated import undo
from services.anonymization.recognise.recognisers.patterns import PatternRecogniser
from services.anonymization.recognise.recognisers.phones import PhoneRecogniser
from services.anonymization.recognise.recognisers.secrets import SecretRecogniser
from services.anonymization.surrogates.dates import read


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
        ("+44\u00a020\u202f7946\u20110958", "+44 20 7946-0958"),
        ("Mac\u034fkel\ufe0fvey \u0660\u0661\u0662", "Mackelvey 012"),
        ("H\u0336e\u0336r, 0\ufe0f\u20e37\ufe0f\u20e3", "Her, 07"),
        ("\u24bd\u24d4\u24e1", "Her"),
        ("Mac&#8203;kel&zwj;vey, a&amp;#64;b.org", "Mackelvey, a@b.org"),
        ("h@x\ufe52org", "h@x.org"),
        ("Mackel\u00ad\nvey, Mackel-\r\nvey, Mackel\u2010\nVey", "Mackelvey, Mackelvey, Mackel-Vey"),
        ("Ms Okafor\r\nLeeds\u2028York", "Ms Okafor\nLeeds\nYork"),
        ("Ms **Ngozi** **Okafor**, Oka<wbr>for, <b>Oka</b>for", "Ms Ngozi Okafor, Okafor, Okafor"),
        ("~~Ms Okafor~~ and __Ms Okafor__", "Ms Okafor and Ms Okafor"),
        ("anna\\_lena@x.org", "anna_lena@x.org"),
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
        "2*3*4, 2**3, *12.3.1984",
        "नमस्ते עִבְרִית",
        "① first ② second",
        "snake_case",
    ],
)
def test_leaves_other_texts_as_they_are(text: str) -> None:
    plain = undo(text)
    assert plain.text == text and plain.place(0, 1) == (0, 1)


def test_marks_on_one_letter_take_time_in_proportion_to_their_number() -> None:
    began = time.process_time()
    # Composing all of them takes a quarter of an hour, in which the process answers nobody.
    assert undo("Ng" + "\u0301\u0323" * 500_000 + "ozi").text.endswith("ozi")
    assert time.process_time() - began < 5


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
        ("see f.mackelvey%2540canary.org now", "SECRET", "f.mackelvey%2540canary.org"),
        ("see h=2Emackelvey=40canary=2Eorg now", "SECRET", "h=2Emackelvey=40canary=2Eorg"),
        ("from =?utf-8?Q?Hermione_Mackelvey?= today", "SECRET", "=?utf-8?Q?Hermione_Mackelvey?="),
        ("write h.b -at- canary -dot- org please", "EMAIL_ADDRESS", "h.b -at- canary -dot- org"),
        ("open C:\\Users\\hmackelvey\\a.txt now", "USERNAME", "hmackelvey"),
        ("open /home/h.mackelvey/a.txt now", "USERNAME", "h.mackelvey"),
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
    "text",
    [
        "deadbeefdeadbeefdeadbeefdeadbeef",
        "/home/runner/work",
        "C:\\Users\\Public\\a",
        "we met at noon at the dot",
        "1 2 3 4 5",
        "one two three",
    ],
)
def test_ignores_other_codes_and_counts(text: str) -> None:
    assert SecretRecogniser().find(text) == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to h.mackelvey @ canary.org please", "EMAIL_ADDRESS", "h.mackelvey @ canary.org"),
        ("Write to hermione@ canary.org please", "EMAIL_ADDRESS", "hermione@ canary.org"),
        ("Write to hermione@\ncanary.org please", "EMAIL_ADDRESS", "hermione@\ncanary.org"),
        ('Write to "h mackelvey"@canary.org please', "EMAIL_ADDRESS", '"h mackelvey"@canary.org'),
        ("Write to hermione@[192.0.2.1] please", "EMAIL_ADDRESS", "hermione@[192.0.2.1]"),
        ("Pay GB29 NWBK 6016\n1331 9268 19 now", "IBAN", "GB29 NWBK 6016\n1331 9268 19"),
        ("Pay GB29  NWBK  6016\t1331 9268 19 now", "IBAN", "GB29  NWBK  6016\t1331 9268 19"),
        ("Card 4111 1111\n1111 1111 was used", "CREDIT_CARD", "4111 1111\n1111 1111"),
        ("Card 4111\t1111\t1111\t1111 was used", "CREDIT_CARD", "4111\t1111\t1111\t1111"),
        ("NINO AB  12  34  56 C", "NATIONAL_ID", "AB  12  34  56 C"),
        ("SSN 536–22–8741", "NATIONAL_ID", "536–22–8741"),
        ("born 12\tMarch\t1984", "DATE_OF_BIRTH", "12\tMarch\t1984"),
    ],
)
def test_finds_values_over_lines_and_cells(text: str, kind: str, value: str) -> None:
    findings = PatternRecogniser({}, {}).find(text)
    assert (kind, value) in {(finding.entity_type, text[finding.start : finding.end]) for finding in findings}


@pytest.mark.parametrize("text", ["Ask us @ example.org", "4111\n1111\n1111\n1111", "2019 @ 3.50"])
def test_a_sentence_and_a_column_of_figures_are_no_values(text: str) -> None:
    assert PatternRecogniser({}, {}).find(text) == []


@pytest.mark.parametrize("number", ["020 (7946) 0958", "+ 44 20 7946 0958", "020\t7946\t0958", "Tel: 020 7946\n0958"])
def test_finds_phones_with_unusual_gaps(number: str) -> None:
    text = f"You reach her by {number} today"
    assert any(text[finding.start : finding.end].endswith("0958") for finding in PhoneRecogniser(("GB",)).find(text))


def test_a_date_in_two_lines_gets_another_date() -> None:
    written = read("12\nMarch\t1984")
    assert written is not None and written.rewrite(date(1990, 5, 3)) == "03 May 1990"
