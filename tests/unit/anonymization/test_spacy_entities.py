"""What becomes of a model's entities: any range that it may mark, in text of words and marks."""

import itertools
import re

import pytest
from presidio_analyzer.nlp_engine import NlpArtifacts
from spacy.lang.en import English
from spacy.tokens import Doc, Span

from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.spacy_entities import NamesEngine, SpacyEntities
from services.anonymization.recognise.lexicon import Lexicon

NLP = English()
RECOGNISER = SpacyEntities(
    Detector("model", DetectorKind.SPACY, ("en",), labels={"PERSON": "PERSON", "ORG": "CLIENT"}),
    "en",
    Lexicon.load(["ask", "the", "mr"]),
)


def names(doc: Doc, *entities: Span) -> list[str]:
    """The names that are left of a model's entities."""
    artifacts = NlpArtifacts(list(entities), doc, [], [], NamesEngine(), "en")
    return [doc.text[each.start : each.end] for each in RECOGNISER.analyze(doc.text, [], artifacts)]


def test_marks_alone_are_no_name() -> None:
    doc = NLP("Ask — Anna Berg about it “…”")
    marks = [Span(doc, token.i, token.i + 1, "PERSON") for token in doc if not token.text.isalpha()]
    assert len(marks) == 4 and names(doc, *marks) == []
    assert names(doc, Span(doc, 1, 4, "PERSON")) == ["Anna Berg"]


@pytest.mark.parametrize("label", ["PERSON", "ORG"])
@pytest.mark.parametrize(
    "text",
    [
        "Ask — Anna Berg “…”",
        "… Mr. Berg’s",
        "- [Anna](#anna) → ✓",
        "A.\n\n•\n\nB. ©",
        "“”",
        "=== Anna ===",
        "\u200b Anna \u200b",
    ],
)
def test_whatever_a_model_marks_gives_a_name_of_the_words_that_it_touches_or_none(text: str, label: str) -> None:
    doc = NLP(text)
    for start, end in itertools.combinations(range(len(doc) + 1), 2):
        entity = Span(doc, start, end, label)
        words = [
            each[0]
            for each in re.finditer(r"\S+", text)
            if each.start() < entity.end_char and each.end() > entity.start_char
        ]
        for name in names(doc, entity):
            assert name and name in " ".join(words)
