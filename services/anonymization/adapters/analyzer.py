"""Presidio's analyzer with our recognisers, run paragraph by paragraph, each distinct paragraph once."""

import hashlib
import hmac
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpArtifacts, SpacyNlpEngine
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.lookups import Lookups

from services.anonymization.adapters.lexicon import Lexicon
from services.anonymization.adapters.recognisers.addresses import Addresses
from services.anonymization.adapters.recognisers.language import LanguageModel
from services.anonymization.adapters.recognisers.organisations import Organisations
from services.anonymization.adapters.recognisers.patterns import Patterns
from services.anonymization.adapters.recognisers.people import People
from services.anonymization.domain import Action, Finding, Policy
from tailor.errors import FailedPrecondition

TYPES = [
    "PERSON",
    "CLIENT",
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "ADDRESS",
    "IBAN",
    "CREDIT_CARD",
    "DATE_OF_BIRTH",
    "EMPLOYEE_CODE",
    "PROJECT_CODE",
    "IP_ADDRESS",
    "NATIONAL_ID",
    "LOCATION",
    "NRP",
    "DATE_TIME",
]
# Not needed to find names, and most of the model's time.
SKIPPED = ["tagger", "parser", "attribute_ruler", "lemmatizer"]
PARAGRAPH_END = re.compile(r"(?m:^#[^\n]*\n+)|\n[ \t]*\n+|(?<=\n)(?=#)|(?<=\n)(?=[ \t]*(?:[-*•]|\d+[.)])[ \t])")
LONGEST_PARAGRAPH = 20_000
# A text without a capital letter, a digit or an @ names nobody.
TELLING = re.compile(r"[^\W_a-z]|@")
BATCH = 64
IGNORED = [
    "CARDINAL",
    "ORDINAL",
    "QUANTITY",
    "PERCENT",
    "MONEY",
    "TIME",
    "PRODUCT",
    "EVENT",
    "LAW",
    "LANGUAGE",
    "WORK_OF_ART",
    "FAC",
]


class NamesEngine(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine, with the entity recogniser alone, and never a download."""

    def load(self) -> None:
        """Load the installed model."""
        self.nlp = {model["lang_code"]: spacy.load(model["model_name"], exclude=SKIPPED) for model in self.models}


class Recogniser(EntityRecognizer):  # type: ignore[misc]
    """One of our finders, as Presidio wants it."""

    def __init__(self, name: str, find: Callable[[str, NlpArtifacts], list[Finding]]) -> None:
        self._find = find
        super().__init__(supported_entities=TYPES, name=name, supported_language="en")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """The finder's findings."""
        del entities
        return [
            RecognizerResult(found.entity_type, found.start, found.end, found.score)
            for found in self._find(text, nlp_artifacts)
        ]


class Analyzer:
    """Finds personal values in a text. Thread-safe."""

    def __init__(
        self, engine: AnalyzerEngine, lexicon: Lexicon, policy: Policy, key: bytes, cache_size: int = 20_000
    ) -> None:
        self.lexicon = lexicon
        self.policy = policy
        self._engine = engine
        self._key = key
        self._cache: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._names = LanguageModel(lexicon)
        self._keeps_rest = all(policy.action(kind) is Action.KEEP for kind in ("LOCATION", "NRP", "DATE_TIME"))
        self._blank = engine.nlp_engine.process_text("", "en")

    @classmethod
    def load(cls, model: str, policy: Policy, key: bytes) -> "Analyzer":
        """Load the language model and the word lists; takes seconds."""
        ignored = NerModelConfiguration(labels_to_ignore=IGNORED)
        names = NamesEngine(models=[{"lang_code": "en", "model_name": model}], ner_model_configuration=ignored)
        names.load()
        lexicon = Lexicon.load(_dictionary(names.get_nlp("en")))
        registry = RecognizerRegistry(recognizers=_recognisers(lexicon, policy), supported_languages=["en"])
        engine = AnalyzerEngine(registry=registry, nlp_engine=names, supported_languages=["en"])
        return cls(engine, lexicon, policy, key)

    def find(self, text: str) -> list[Finding]:
        """Findings over the whole text, overlapping ones too, without what the policy allows or keeps."""
        places = list(paragraphs(text))
        findings: list[Finding] = []
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            # A lock by batch, so that a long document does not keep short texts waiting.
            with self._lock:
                found = self._batch([paragraph for _, paragraph in batch])
            findings += [each.shifted(start) for (start, _), of in zip(batch, found, strict=True) for each in of]
        return sorted(findings, key=lambda finding: finding.start)

    def _batch(self, texts: list[str]) -> list[tuple[Finding, ...]]:
        digests = [hmac.digest(self._key, text.encode(), hashlib.sha256) for text in texts]
        known = {digest: self._cache[digest] for digest in digests if digest in self._cache}
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        telling = {digest: text for digest, text in new.items() if TELLING.search(text)}
        modelled = {digest: text for digest, text in telling.items() if self._needs_model(text)}
        read = self._engine.nlp_engine.process_batch(list(modelled.values()), "en", batch_size=BATCH)
        artifacts = {digest: each for digest, (_, each) in zip(modelled, read, strict=True)}
        analysed = {
            digest: tuple(self._analyze(text, artifacts.get(digest, self._blank))) for digest, text in telling.items()
        }
        known |= dict.fromkeys(new, ()) | analysed
        for digest in digests:
            self._cache[digest] = known[digest]
            self._cache.move_to_end(digest)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [known[digest] for digest in digests]

    def _needs_model(self, text: str) -> bool:
        """False where the language model could say nothing that would be believed; it takes most of the time."""
        return not self._keeps_rest or self._names.may_find(text)

    def _analyze(self, text: str, artifacts: NlpArtifacts) -> Iterator[Finding]:
        allowed = self.policy.allowed(text)
        results: list[Any] = self._engine.analyze(text=text, language="en", entities=TYPES, nlp_artifacts=artifacts)
        for result in results:
            if self.policy.action(result.entity_type) is Action.KEEP:
                continue
            if not any(result.start < end and start < result.end for start, end in allowed):
                yield Finding(result.start, result.end, result.entity_type, result.score)


def paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """The text's paragraphs, headings and list items with their places; a giant one is cut at a line end."""
    start = 0
    for end in [*(match.end() for match in PARAGRAPH_END.finditer(text)), len(text)]:
        while end - start > LONGEST_PARAGRAPH:
            limit = start + LONGEST_PARAGRAPH
            cut = next((place + 1 for mark in ("\n", ". ") if (place := text.rfind(mark, start, limit)) > start), limit)
            yield start, text[start:cut]
            start = cut
        if end > start:
            yield start, text[start:end]
            start = end


def _dictionary(model: Any) -> set[str]:
    """English words in their dictionary form, from the tables of the model's lemmatizer."""
    tables = Lookups().from_disk(model.path / "lemmatizer" / "lookups")
    if not tables.has_table("lemma_index"):
        raise FailedPrecondition("BAD_MODEL", "The language model brings no dictionary (lemmatizer lookups).")
    listed = (words for name in ("lemma_index", "lemma_exc") for words in tables.get_table(name).values())
    dictionary: set[str] = set(STOP_WORDS).union(*listed)
    return dictionary


def _recognisers(lexicon: Lexicon, policy: Policy) -> list[Recogniser]:
    patterns, addresses, people, organisations, language = (
        Patterns(policy.codes, policy.deny),
        Addresses(lexicon),
        People(lexicon),
        Organisations(lexicon),
        LanguageModel(lexicon),
    )
    return [
        Recogniser("patterns", lambda text, _: patterns.find(text)),
        Recogniser("addresses", lambda text, _: addresses.find(text)),
        Recogniser("people", lambda text, _: people.find(text)),
        Recogniser("organisations", lambda text, _: organisations.find(text)),
        Recogniser("language", lambda text, artifacts: language.find(text, artifacts.entities)),
    ]
