"""One detector in one language: a registry of Presidio's recognisers, whose findings count as one vote."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts

from services.anonymization.domain import ENTITY_TYPES, Finding
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.spacy_entities import NamesEngine

Find = Callable[[str], list[Finding]]
# Makes the recognisers of a detector for a language; the heavy ones come from `adapters`.
MakeRecognisers = Callable[[Detector, str], Sequence[EntityRecognizer]]
BATCH = 64


class RuleRecogniser(EntityRecognizer):  # type: ignore[misc]
    """Gives one of our recognisers Presidio's interface."""

    def __init__(self, name: str, language: str, find: Find) -> None:
        self._find = find
        super().__init__(supported_entities=list(ENTITY_TYPES), name=name, supported_language=language)

    def load(self) -> None:
        """Presidio requires this method; our recognisers load nothing."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        del entities, nlp_artifacts
        return [
            RecognizerResult(finding.entity_type, finding.start, finding.end, finding.score)
            for finding in self._find(text)
        ]


class NoEnhancer(ContextAwareEnhancer):  # type: ignore[misc]
    """Context words are the business of each recogniser. Presidio's enhancer would copy every result."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0, 0, 0)

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: NlpArtifacts,
        recognizers: list[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        del text, nlp_artifacts, recognizers, context
        return raw_results


class DetectorEngine:
    """Presidio's engine over the recognisers of one detector. Not thread-safe."""

    def __init__(
        self, detector: Detector, language: str, recognisers: Iterable[EntityRecognizer], model: NamesEngine
    ) -> None:
        self.detector = detector
        self.recognisers = tuple(recognisers)
        self._language = language
        self._model = model
        self._is_predefined = detector.kind is DetectorKind.PRESIDIO
        self._types = sorted({kind for recogniser in self.recognisers for kind in recogniser.supported_entities})
        registry = RecognizerRegistry(recognizers=list(self.recognisers), supported_languages=[language])
        self._engine = AnalyzerEngine(
            registry=registry,
            nlp_engine=model,
            supported_languages=[language],
            context_aware_enhancer=None if self._is_predefined else NoEnhancer(),
        )
        self._no_artifacts = NlpArtifacts(
            [], model.process_text("", language).tokens, [], [], model, language, scores=[]
        )

    def with_recognisers(self, recognisers: Iterable[EntityRecognizer]) -> "DetectorEngine":
        """The same detector and model with other recognisers."""
        return DetectorEngine(self.detector, self._language, recognisers, self._model)

    @property
    def has_model(self) -> bool:
        """True if the detector reads texts with a spaCy model."""
        return bool(self.detector.model) and self.detector.kind is DetectorKind.SPACY

    def memory_zone(self) -> AbstractContextManager[Any]:
        """A zone after which spaCy forgets the words that it read in it; otherwise it remembers every other word for ever."""
        zone: AbstractContextManager[Any] = self._model.get_nlp(self._language).memory_zone()
        return zone

    def find(self, texts: Sequence[str]) -> list[list[Finding]]:
        """The findings in each text, in order of their start."""
        if self._is_predefined:
            return [self._find(text, self._words(text)) for text in texts]
        if not self.has_model:
            return [self._find(text, self._no_artifacts) for text in texts]
        batches = self._model.process_batch(list(texts), self._language, batch_size=BATCH)
        return [self._find(text, artifacts) for text, (_, artifacts) in zip(texts, batches, strict=True)]

    def _find(self, text: str, artifacts: NlpArtifacts) -> list[Finding]:
        results: list[Any] = self._engine.analyze(
            text=text, language=self._language, entities=self._types, nlp_artifacts=artifacts
        )
        findings = (
            Finding(result.start, result.end, kind, result.score)
            for result in results
            if (kind := self._type(result.entity_type)) is not None
        )
        return sorted(findings, key=lambda finding: finding.start)

    def _type(self, label: str) -> str | None:
        """The type of personal value. Presidio's own recognisers have Presidio's types; all others have mapped their labels."""
        return self.detector.labels.get(label) if self._is_predefined else label

    def _words(self, text: str) -> NlpArtifacts:
        """The words of a text, which Presidio's recognisers look for as context."""
        doc = self._model.get_nlp(self._language).make_doc(text)
        words = [token.lower_ for token in doc]
        places = [token.idx for token in doc]
        artifacts = NlpArtifacts([], doc, places, words, self._model, self._language, scores=[])
        artifacts.keywords = words
        return artifacts
