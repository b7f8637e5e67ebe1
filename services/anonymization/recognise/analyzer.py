"""Presidio's analyzer with our recognisers, paragraph by paragraph; a paragraph that was seen before is not analysed again."""

import hashlib
import hmac
import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import spacy
import spellchecker
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.lookups import Lookups
from spacy.tokens import Doc

from services.anonymization.domain import ENTITY_TYPES, Finding, Policy
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.recognisers.addresses import AddressRecogniser
from services.anonymization.recognise.recognisers.labelled import LabelRecogniser
from services.anonymization.recognise.recognisers.language_model import ModelEntities
from services.anonymization.recognise.recognisers.layout import LayoutRecogniser
from services.anonymization.recognise.recognisers.organisations import OrganisationRecogniser
from services.anonymization.recognise.recognisers.patterns import PatternRecogniser
from services.anonymization.recognise.recognisers.people import PersonRecogniser
from services.anonymization.recognise.recognisers.phones import PhoneRecogniser
from services.anonymization.recognise.recognisers.secrets import SecretRecogniser
from tailor.errors import FailedPrecondition, Reason

TYPES = list(ENTITY_TYPES)
# Components that take most of the model's time and do not help to find names.
SKIPPED = ["tagger", "parser", "attribute_ruler", "lemmatizer"]
PARAGRAPH_END = re.compile(r"(?m:^#[^\n]*\n+)|\n[ \t]*\n+|(?<=\n)(?=#)|(?<=\n)(?=[ \t]*(?:[-*•]|\d+[.)])[ \t])")
MAX_PARAGRAPH_CHARS = 20_000
# A paragraph without a capital letter, a digit or an @ contains nothing personal.
TELLING = re.compile(r"[^\W_a-z]|@")
BATCH = 64
CACHE_SIZE = 20_000
# The name of the only recogniser that depends on the policy.
PATTERNS = "patterns"
# Entities of the model that are never personal.
IGNORED = [
    "CARDINAL", "ORDINAL", "QUANTITY", "PERCENT", "MONEY", "TIME", "PRODUCT", "EVENT", "LAW", "LANGUAGE",
    "WORK_OF_ART", "FAC",
]  # fmt: skip
DEFAULT_REGIONS = ("GB", "US", "DE", "FR")


class NamesEngine(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine with only the entity recogniser. It never downloads a model; without one, it finds no names."""

    def load(self) -> None:
        """Load each language's installed model; if none is named, only the language's tokenisation rules."""
        self.nlp = {
            code: spacy.load(name, exclude=SKIPPED) if name else spacy.blank(code)
            for code, name in ((model["lang_code"], model["model_name"]) for model in self.models)
        }

    def _doc_to_nlp_artifact(self, doc: Doc, language: str) -> NlpArtifacts:
        """Only the entities. Lemmas and keywords are not used, and take as long as the model."""
        return NlpArtifacts(doc.ents, doc, [], [], self, language, scores=[])


class PresidioRecogniser(EntityRecognizer):  # type: ignore[misc]
    """Gives one of our recognisers Presidio's interface."""

    def __init__(self, name: str, language: str, find: Callable[[str], list[Finding]]) -> None:
        self._find = find
        super().__init__(supported_entities=TYPES, name=name, supported_language=language)

    def load(self) -> None:
        """Presidio requires this method; our recognisers load nothing."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        del entities, nlp_artifacts
        return [
            RecognizerResult(finding.entity_type, finding.start, finding.end, finding.score)
            for finding in self._find(text)
        ]


class Analyzer:
    """Finds personal values in a text. Thread-safe."""

    def __init__(self, engine: AnalyzerEngine, lexicon: Lexicon, policy: Policy, cache_size: int = CACHE_SIZE) -> None:
        self.lexicon = lexicon
        self.policy = policy
        self._engine = engine
        # Findings by paragraph. The keys are keyed hashes, so that the cache holds no text.
        self._key = secrets.token_bytes(32)
        self._cache: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._language = lexicon.language
        self._model_entities = ModelEntities(lexicon)
        self._layout = LayoutRecogniser(lexicon)
        self._is_rest_kept = all(policy.keeps(kind) for kind in ("LOCATION", "NRP", "DATE_TIME"))
        self._no_artifacts = engine.nlp_engine.process_text("", self._language)

    @classmethod
    def load(
        cls, model: str, policy: Policy, language: str = "en", phone_regions: Iterable[str] = DEFAULT_REGIONS
    ) -> "Analyzer":
        """Load the language model and the word lists; takes seconds. `model` may be empty for German.

        Raises FailedPrecondition (INVALID_MODEL) if an English model has no dictionary.
        """
        ignored = NerModelConfiguration(labels_to_ignore=IGNORED)
        names = NamesEngine(models=[{"lang_code": language, "model_name": model}], ner_model_configuration=ignored)
        names.load()
        dictionary = _read_dictionary(names.get_nlp(language)) if language == "en" else _spellings(language)
        lexicon = Lexicon.load(dictionary, language)
        recognisers = _recognisers(lexicon, policy, phone_regions)
        registry = RecognizerRegistry(recognizers=recognisers, supported_languages=[language])
        engine = AnalyzerEngine(registry=registry, nlp_engine=names, supported_languages=[language])
        return cls(engine, lexicon, policy)

    def with_policy(self, policy: Policy, cache_size: int = BATCH) -> "Analyzer":
        """The same model, lexicon and lock with another policy and a small cache. With `cache_size=0`, no word is remembered."""
        recognisers = [
            *(recogniser for recogniser in self._engine.registry.recognizers if recogniser.name != PATTERNS),
            PresidioRecogniser(PATTERNS, self._language, PatternRecogniser(policy.codes, policy.deny).find),
        ]
        registry = RecognizerRegistry(recognizers=recognisers, supported_languages=[self._language])
        model = self._engine.nlp_engine
        engine = AnalyzerEngine(registry=registry, nlp_engine=model, supported_languages=[self._language])
        other = Analyzer(engine, self.lexicon, policy, cache_size)
        other._lock = self._lock
        return other

    def find(self, text: str) -> list[Finding]:
        """All findings in the text, overlapping ones included, without what the policy allows or keeps."""
        places = list(paragraphs(text))
        findings: list[Finding] = []
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            # Lock for each batch, so that a long document does not hold up short texts.
            with self._lock, self._memory():
                findings_by_paragraph = self._find_batch([paragraph for _, paragraph in batch])
            for (start, _), paragraph_findings in zip(batch, findings_by_paragraph, strict=True):
                findings += [finding.shift(start) for finding in paragraph_findings]
        findings += self._drop_allowed(text, self._layout.find(text))
        return sorted(findings, key=lambda finding: finding.start)

    def _memory(self) -> AbstractContextManager[Any]:
        """Without a cache, a memory zone: spaCy remembers every other word that it reads for ever."""
        if self._cache_size:
            return nullcontext()
        zone: AbstractContextManager[Any] = self._engine.nlp_engine.get_nlp(self._language).memory_zone()
        return zone

    def _find_batch(self, texts: list[str]) -> list[tuple[Finding, ...]]:
        digests = [hmac.digest(self._key, text.encode(), hashlib.sha256) for text in texts]
        known = {digest: self._cache[digest] for digest in digests if digest in self._cache}
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        telling = {digest: text for digest, text in new.items() if TELLING.search(text)}
        findings = {digest: list(self._apply_rules(text)) for digest, text in telling.items()}
        for_model = {digest: text for digest, text in telling.items() if self._needs_model(text, findings[digest])}
        results = self._engine.nlp_engine.process_batch(list(for_model.values()), self._language, batch_size=BATCH)
        for (digest, text), (_, artifacts) in zip(for_model.items(), results, strict=True):
            findings[digest] += self._drop_allowed(text, self._model_entities.find(text, artifacts.entities))
        known |= dict.fromkeys(new, ()) | {digest: tuple(of_text) for digest, of_text in findings.items()}
        for digest in digests:
            self._cache[digest] = known[digest]
            self._cache.move_to_end(digest)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [known[digest] for digest in digests]

    def _needs_model(self, text: str, findings: list[Finding]) -> bool:
        """False if no answer of the model would be accepted. The model takes most of the time."""
        return not self._is_rest_kept or self._model_entities.may_find(text, findings)

    def _apply_rules(self, text: str) -> Iterator[Finding]:
        """The findings of all recognisers that need no language model."""
        results: list[Any] = self._engine.analyze(
            text=text, language=self._language, entities=TYPES, nlp_artifacts=self._no_artifacts
        )
        findings = [Finding(result.start, result.end, result.entity_type, result.score) for result in results]
        return self._drop_allowed(text, findings)

    def _drop_allowed(self, text: str, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings that the policy neither keeps by type nor allows by its words."""
        allowed = self.policy.find_allowed(text)
        for finding in findings:
            if not self.policy.keeps(finding.entity_type) and not any(
                finding.start < end and start < finding.end for start, end in allowed
            ):
                yield finding


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The text's paragraphs, headings and list items with their offsets. Very long ones are cut at a line or sentence end."""
    start = 0
    for end in [*(match.end() for match in PARAGRAPH_END.finditer(text)), len(text)]:
        while end - start > MAX_PARAGRAPH_CHARS:
            limit = start + MAX_PARAGRAPH_CHARS
            cut = next((place + 1 for mark in ("\n", ". ") if (place := text.rfind(mark, start, limit)) > start), limit)
            yield start, text[start:cut]
            start = cut
        if end > start:
            yield start, text[start:end]
            start = end


def _read_dictionary(model: Any) -> set[str]:
    """English words in their dictionary form, from the tables of the model's lemmatizer."""
    tables = Lookups().from_disk(model.path / "lemmatizer" / "lookups")
    if not tables.has_table("lemma_index"):
        raise FailedPrecondition(
            Reason.INVALID_MODEL, "The language model has no dictionary (lemmatizer lookups); choose another model."
        )
    listed = (words for name in ("lemma_index", "lemma_exc") for words in tables.get_table(name).values())
    dictionary: set[str] = set(STOP_WORDS).union(*listed)
    return dictionary


def _spellings(language: str) -> set[str]:
    """The words of a language without a model, in lower case."""
    return set(spellchecker.SpellChecker(language=language, distance=1).word_frequency.words())


def _recognisers(lexicon: Lexicon, policy: Policy, phone_regions: Iterable[str]) -> list[PresidioRecogniser]:
    finders: dict[str, Callable[[str], list[Finding]]] = {
        PATTERNS: PatternRecogniser(policy.codes, policy.deny).find,
        "labelled": LabelRecogniser().find,
        "phones": PhoneRecogniser(phone_regions).find,
        "secrets": SecretRecogniser().find,
        "addresses": AddressRecogniser(lexicon).find,
        "people": PersonRecogniser(lexicon).find,
        "organisations": OrganisationRecogniser(lexicon).find,
    }
    return [PresidioRecogniser(name, lexicon.language, find) for name, find in finders.items()]
