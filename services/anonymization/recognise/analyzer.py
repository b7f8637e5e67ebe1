"""Presidio's analyzer with our recognisers, run paragraph by paragraph, each distinct paragraph once."""

import hashlib
import hmac
import re
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
from services.anonymization.recognise.recognisers.addresses import Addresses
from services.anonymization.recognise.recognisers.labelled import Labelled
from services.anonymization.recognise.recognisers.language_model import LanguageModel
from services.anonymization.recognise.recognisers.layout import Layout
from services.anonymization.recognise.recognisers.organisations import Organisations
from services.anonymization.recognise.recognisers.patterns import Patterns
from services.anonymization.recognise.recognisers.people import People
from services.anonymization.recognise.recognisers.phones import Phones
from services.anonymization.recognise.recognisers.secrets import Secrets
from tailor.errors import FailedPrecondition, Reason

TYPES = list(ENTITY_TYPES)
# Not needed to find names, and most of the model's time.
SKIPPED = ["tagger", "parser", "attribute_ruler", "lemmatizer"]
PARAGRAPH_END = re.compile(r"(?m:^#[^\n]*\n+)|\n[ \t]*\n+|(?<=\n)(?=#)|(?<=\n)(?=[ \t]*(?:[-*•]|\d+[.)])[ \t])")
LONGEST_PARAGRAPH = 20_000
# A text without a capital letter, a digit or an @ names nobody.
TELLING = re.compile(r"[^\W_a-z]|@")
BATCH = 64
# The one recogniser that goes by the policy.
PATTERNS = "patterns"
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
DEFAULT_REGIONS = ("GB", "US", "DE", "FR")


class NamesEngine(SpacyNlpEngine):  # type: ignore[misc]
    """Presidio's spaCy engine, with the entity recogniser alone, and never a download. Without a model, it finds no names."""

    def load(self) -> None:
        """Load the installed model, or the language's rules for words where none is named."""
        self.nlp = {
            code: spacy.load(name, exclude=SKIPPED) if name else spacy.blank(code)
            for code, name in ((model["lang_code"], model["model_name"]) for model in self.models)
        }

    def _doc_to_nlp_artifact(self, doc: Doc, language: str) -> NlpArtifacts:
        """The entities; nobody asks for lemmas and keywords, which take as long as the model."""
        return NlpArtifacts(doc.ents, doc, [], [], self, language, scores=[])


class Recogniser(EntityRecognizer):  # type: ignore[misc]
    """One of our finders, as Presidio wants it."""

    def __init__(self, name: str, language: str, find: Callable[[str], list[Finding]]) -> None:
        self._find = find
        super().__init__(supported_entities=TYPES, name=name, supported_language=language)

    def load(self) -> None:
        """Nothing to load."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts) -> list[RecognizerResult]:
        """The finder's findings."""
        del entities, nlp_artifacts
        return [RecognizerResult(found.entity_type, found.start, found.end, found.score) for found in self._find(text)]


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
        self._language = lexicon.language
        self._names = LanguageModel(lexicon)
        self._layout = Layout(lexicon)
        self._keeps_rest = all(policy.keeps(kind) for kind in ("LOCATION", "NRP", "DATE_TIME"))
        self._blank = engine.nlp_engine.process_text("", self._language)

    @classmethod
    def load(
        cls,
        model: str,
        policy: Policy,
        key: bytes,
        language: str = "en",
        phone_regions: Iterable[str] = DEFAULT_REGIONS,
    ) -> "Analyzer":
        """Load the language model and the word lists; takes seconds. `model` may be empty for German, which has none."""
        ignored = NerModelConfiguration(labels_to_ignore=IGNORED)
        names = NamesEngine(models=[{"lang_code": language, "model_name": model}], ner_model_configuration=ignored)
        names.load()
        dictionary = _dictionary(names.get_nlp(language)) if language == "en" else _spellings(language)
        lexicon = Lexicon.load(dictionary, language)
        recognisers = _recognisers(lexicon, policy, phone_regions)
        registry = RecognizerRegistry(recognizers=recognisers, supported_languages=[language])
        engine = AnalyzerEngine(registry=registry, nlp_engine=names, supported_languages=[language])
        return cls(engine, lexicon, policy, key)

    def under(self, policy: Policy, cache_size: int = BATCH) -> "Analyzer":
        """The same model, words and lock under another policy, with a small cache of its own. With none, no word is remembered."""
        recognisers = [
            *(each for each in self._engine.registry.recognizers if each.name != PATTERNS),
            Recogniser(PATTERNS, self._language, Patterns(policy.codes, policy.deny).find),
        ]
        registry = RecognizerRegistry(recognizers=recognisers, supported_languages=[self._language])
        model = self._engine.nlp_engine
        engine = AnalyzerEngine(registry=registry, nlp_engine=model, supported_languages=[self._language])
        other = Analyzer(engine, self.lexicon, policy, self._key, cache_size)
        other._lock = self._lock
        return other

    def find(self, text: str) -> list[Finding]:
        """Findings over the whole text, overlapping ones too, without what the policy allows or keeps."""
        places = list(paragraphs(text))
        findings: list[Finding] = []
        for first in range(0, len(places), BATCH):
            batch = places[first : first + BATCH]
            # A lock by batch, so that a long document does not keep short texts waiting.
            with self._lock, self._remembering():
                found = self._batch([paragraph for _, paragraph in batch])
            findings += [each.shifted(start) for (start, _), of in zip(batch, found, strict=True) for each in of]
        findings += self._permitted(text, self._layout.find(text))
        return sorted(findings, key=lambda finding: finding.start)

    def _remembering(self) -> AbstractContextManager[Any]:
        """spaCy keeps every word that it reads for good, but for those of a memory zone."""
        if self._cache_size:
            return nullcontext()
        zone: AbstractContextManager[Any] = self._engine.nlp_engine.get_nlp(self._language).memory_zone()
        return zone

    def _batch(self, texts: list[str]) -> list[tuple[Finding, ...]]:
        digests = [hmac.digest(self._key, text.encode(), hashlib.sha256) for text in texts]
        known = {digest: self._cache[digest] for digest in digests if digest in self._cache}
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        telling = {digest: text for digest, text in new.items() if TELLING.search(text)}
        analysed = {digest: list(self._analyze(text)) for digest, text in telling.items()}
        modelled = {digest: text for digest, text in telling.items() if self._needs_model(text, analysed[digest])}
        read = self._engine.nlp_engine.process_batch(list(modelled.values()), self._language, batch_size=BATCH)
        for (digest, text), (_, artifacts) in zip(modelled.items(), read, strict=True):
            analysed[digest] += self._permitted(text, self._names.find(text, artifacts.entities))
        known |= dict.fromkeys(new, ()) | {digest: tuple(found) for digest, found in analysed.items()}
        for digest in digests:
            self._cache[digest] = known[digest]
            self._cache.move_to_end(digest)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [known[digest] for digest in digests]

    def _needs_model(self, text: str, found: list[Finding]) -> bool:
        """False where the language model could say nothing that would be believed; it takes most of the time."""
        return not self._keeps_rest or self._names.may_find(text, found)

    def _analyze(self, text: str) -> Iterator[Finding]:
        """What the rules find, without the language model."""
        results: list[Any] = self._engine.analyze(
            text=text, language=self._language, entities=TYPES, nlp_artifacts=self._blank
        )
        found = [Finding(each.start, each.end, each.entity_type, each.score) for each in results]
        return self._permitted(text, found)

    def _permitted(self, text: str, findings: Iterable[Finding]) -> Iterator[Finding]:
        """What the policy neither keeps by type nor allows by its words."""
        allowed = self.policy.allowed(text)
        for found in findings:
            if not self.policy.keeps(found.entity_type) and not any(
                found.start < end and start < found.end for start, end in allowed
            ):
                yield found


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
        raise FailedPrecondition(Reason.INVALID_MODEL, "The language model brings no dictionary (lemmatizer lookups).")
    listed = (words for name in ("lemma_index", "lemma_exc") for words in tables.get_table(name).values())
    dictionary: set[str] = set(STOP_WORDS).union(*listed)
    return dictionary


def _spellings(language: str) -> set[str]:
    """The words of a language that has no model, in lower case."""
    return set(spellchecker.SpellChecker(language=language, distance=1).word_frequency.words())


def _recognisers(lexicon: Lexicon, policy: Policy, phone_regions: Iterable[str]) -> list[Recogniser]:
    patterns = Patterns(policy.codes, policy.deny)
    finders: dict[str, Callable[[str], list[Finding]]] = {
        PATTERNS: patterns.find,
        "labelled": Labelled().find,
        "phones": Phones(phone_regions).find,
        "secrets": Secrets().find,
        "addresses": Addresses(lexicon).find,
        "people": People(lexicon).find,
        "organisations": Organisations(lexicon).find,
    }
    return [Recogniser(name, lexicon.language, find) for name, find in finders.items()]
