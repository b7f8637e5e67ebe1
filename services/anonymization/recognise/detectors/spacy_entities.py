"""The names of a spaCy model as a recogniser of Presidio: trimmed to the name, and scored by the detector and the word lists."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import spacy
from presidio_analyzer import EntityRecognizer, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine
from spacy.tokens import Doc

from services.anonymization.recognise.detectors.definition import Detector
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.tokens import Token, is_heading, tokenise
from services.anonymization.recognise.word_votes import DETERMINERS, NAMES, ORDINARY, WordVotes

# Components that take most of the model's time and do not help to find names.
SKIPPED = ["tagger", "parser", "attribute_ruler", "lemmatizer", "morphologizer", "senter"]
DEFAULT_SCORE = 0.4
# A heading has capital letters for every word.
HEADING_DOUBT = 0.25
LEADING = (*DETERMINERS, "to", "from", "heard", "owed", "concluded", "dear", "hi", "hello")


class NamesEngine(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine with only the entity recogniser. It never downloads a model; without one, it finds no names."""

    def load(self) -> None:
        """Load each language's installed model; if none is named, only the language's tokenisation rules."""
        with warnings.catch_warnings():
            # W095: the model was made with spaCy 3.7. Its quality under the installed version is what the bench measures.
            warnings.filterwarnings("ignore", message=r".*W095")
            self.nlp = {
                code: spacy.load(name, exclude=SKIPPED) if name else spacy.blank(code)
                for code, name in ((model["lang_code"], model["model_name"]) for model in self.models)
            }

    def _doc_to_nlp_artifact(self, doc: Doc, language: str) -> NlpArtifacts:
        """Only the entities. Lemmas and keywords are not used, and take as long as the model."""
        return NlpArtifacts(doc.ents, doc, [], [], self, language, scores=[])


class SpacyEntities(EntityRecognizer):  # type: ignore[misc]
    """Reads the entities that the engine found in a paragraph."""

    def __init__(self, detector: Detector, language: str, lexicon: Lexicon) -> None:
        self._detector = detector
        self._votes = WordVotes(lexicon)
        self._lexicon = lexicon
        types = sorted(set(detector.labels.values()))
        super().__init__(supported_entities=types, name=detector.name, supported_language=language)

    def load(self) -> None:
        """Presidio requires this method; the engine has loaded the model."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        del entities
        return list(self._results(text, nlp_artifacts.entities))

    def _results(self, text: str, entities: Any) -> Iterator[RecognizerResult]:
        tokens: Sequence[Token] = tokenise(text) if entities else ()
        place = 0
        for entity in entities:
            kind = self._detector.labels.get(entity.label_)
            if kind is None:
                continue
            score = self._detector.scores.get(kind, DEFAULT_SCORE)
            if kind not in NAMES:
                yield RecognizerResult(kind, entity.start_char, entity.end_char, score)
                continue
            # Entities and tokens are in order, so that each token is read once.
            while place < len(tokens) and tokens[place].end <= entity.start_char:
                place += 1
            name = self._trim(tokens, place, entity.end_char, kind)
            if name is not None:
                first, last = name
                doubt = self._votes.doubt(tokens, first, last, kind)
                doubt += HEADING_DOUBT if is_heading(text) else 0
                yield RecognizerResult(kind, tokens[first].start, tokens[last].bare_end, max(0.0, score - doubt))

    def _trim(self, tokens: Sequence[Token], first: int, end: int, kind: str) -> tuple[int, int] | None:
        """The first and last token of the name, without articles, greetings, labels and small or numbered words around it.

        None if no word is left: models also mark signs as names.
        """
        if first == len(tokens) or tokens[first].start >= end:
            return None
        last = first
        while last + 1 < len(tokens) and tokens[last + 1].start < end and "\n\n" not in tokens[last + 1].gap:
            last += 1
        while first <= last and self._is_before(tokens[first], first == last, kind):
            first += 1
        while last >= first and self._is_after(tokens[last], first == last, kind):
            last -= 1
        return (first, last) if first <= last else None

    def _is_before(self, token: Token, is_only: bool, kind: str) -> bool:
        if not token.is_capitalised and not self._lexicon.has("particles", token.text):
            return True
        is_label = kind == "PERSON" and self._lexicon.has("person_labels", token.text)
        return not is_only and (token.text.lower() in LEADING or self._lexicon.has_title(token.text) or is_label)

    def _is_after(self, token: Token, is_only: bool, kind: str) -> bool:
        if not token.is_capitalised or any(map(str.isdigit, token.text)):
            return True
        ordinary = kind == "PERSON" and self._lexicon.has_any((*ORDINARY, "titles_male", "titles_female"), token.text)
        return not is_only and ordinary and not token.is_initial
