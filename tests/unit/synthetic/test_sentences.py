"""Sentences end where their language ends them, not at its abbreviations."""

import pytest

from services.synthetic.rows.blocks import read_blocks
from services.synthetic.rows.pieces import Reading
from services.synthetic.rows.sentences import find_sentences


def split(text: str, language: str) -> list[str]:
    return [text[start:end] for start, end in find_sentences(text, 0, len(text), language)]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["We use tools, e.g. Excel and Word, for this.", "See No. 5 and Fig. 3.", "It works."]),
        ("en", ["Was it paid?", "The answer is no.", "Then Mr. Hale left for the U.S. Embassy."]),
        (
            "de",
            [
                "Man nimmt z.B. Word, d. h. Papier, und (vgl. Abb. 3) i. d. R. Stifte.",
                "Siehe Nr. 5, Abs. 2 und S. 7 im Band.",
                "Ende.",
            ],
        ),
        (
            "de",
            [
                "Pipeline,z.B. Word, und Geräte/z.B. Drucker, am 10. Juni.",
                "Das ist der letzte Satz.",
                "Danach kommt der dritte.",
            ],
        ),
        (
            "fr",
            ["Il existe p. ex. Word, c.-à-d. Papier, cf. Annexe 2.", "Mme. Lenoir et M. Dupont y sont.", "C'est tout."],
        ),
        ("es", ["Véase p. ej. Madrid, pág. 3, o la Sra. López de EE. UU. Siempre.", "No.", "Otra cosa."]),
        ("it", ["Si veda p. es. Roma, ad es. Ostia, o il sig. Rossi e la dott.ssa Bianchi, n. 5.", "Poi si parte."]),
        ("nl", ["Zie bijv. Amsterdam, d.w.z. Noord, o.a. Philips, blz. 3, en mevr. Smit en dhr. Jansen.", "Klaar."]),
        ("pt", ["Veja p. ex. Lisboa, z.B. Porto.", "Fim."]),
    ],
)
def test_an_abbreviation_does_not_end_a_sentence(language: str, sentences: list[str]) -> None:
    assert split(" ".join(sentences), language) == sentences


def test_a_word_of_one_language_that_is_an_abbreviation_of_another_ends_its_sentence() -> None:
    assert split("We saw the art. Then we left.", "en") == ["We saw the art.", "Then we left."]
    assert split("Siehe Art. 5. Ende.", "de") == ["Siehe Art. 5. Ende."]


def test_a_line_that_ends_in_an_abbreviation_goes_on_in_the_next() -> None:
    text = (
        "Die Kanzlei führt jeden Tag das Buch und schreibt jede Zahlung auf, z.B.\n"
        "Mieten und Löhne. Am Abend schließt der Leiter die Seite und legt\nsie ab.\n"
    )
    (block,) = read_blocks(Reading(text, "de"))
    assert [sentence.text for sentence in block.sentences] == [
        "Die Kanzlei führt jeden Tag das Buch und schreibt jede Zahlung auf, z.B. Mieten und Löhne.",
        "Am Abend schließt der Leiter die Seite und legt sie ab.",
    ]
