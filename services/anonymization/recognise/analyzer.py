"""All detectors over a text, paragraph by paragraph; a paragraph that was seen before is not analysed again."""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import spacy.util
from presidio_analyzer import EntityRecognizer
from presidio_analyzer.nlp_engine import NerModelConfiguration
from spacy.lang.en.stop_words import STOP_WORDS
from spacy.lookups import Lookups

from services.anonymization.domain import Disagreement, Finding, Policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analysis import Recognition, TextToRead
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.engines import DetectorEngine, MakeRecognisers
from services.anonymization.recognise.detectors.model_digest import check_model
from services.anonymization.recognise.detectors.rules import rule_recognisers, with_patterns
from services.anonymization.recognise.detectors.spacy_entities import NamesEngine, SpacyEntities
from services.anonymization.recognise.detectors.votes import CERTAIN, Ballot, combine
from services.anonymization.recognise.languages.dictionaries import read_dictionary
from services.anonymization.recognise.languages.lexicons import load_lexicon
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.paragraphs import batches, paragraphs
from services.anonymization.recognise.ports import SMALL_CACHE_SIZE
from services.anonymization.recognise.recognisers.enumerations import EnumerationRecogniser
from services.anonymization.recognise.recognisers.layout import LayoutRecogniser
from services.anonymization.recognise.recognition import recognise
from services.anonymization.recognise.technical import technicality
from services.anonymization.recognise.technical_text import TechnicalText
from services.anonymization.recognise.tokens import starts_sentence, tokenise
from services.anonymization.recognise.truecase import Truecaser
from tailor.errors import FailedPrecondition, Reason

# The share of capital letters in a text that is written in capitals.
SHOUTED = 0.6
CACHE_SIZE = 20_000
DEFAULT_REGIONS = ("GB", "US", "DE", "FR")
# Entities of a model that are never personal.
IGNORED = ["CARDINAL", "ORDINAL", "QUANTITY", "PERCENT", "MONEY", "TIME"]
# Found by models only.
MODEL_TYPES = ("LOCATION", "NRP", "DATE_TIME")
# A name in a list of people does not count in a technical text, whose lists name programs.
LEAST_LISTED = 0.3
NO_MAKERS: Mapping[DetectorKind, MakeRecognisers] = {}

# The findings of each detector in one paragraph, in the order of the detectors; None if a detector was not asked.
Found = tuple[tuple[Finding, ...] | None, ...]


class Analyzer:
    """Finds personal values in the texts of one language. Thread-safe."""

    def __init__(
        self, engines: Sequence[DetectorEngine], lexicon: Lexicon, policy: Policy, cache_size: int = CACHE_SIZE
    ) -> None:
        self.lexicon = lexicon
        self.policy = policy
        self._engines = tuple(engines)
        # Findings by paragraph. The keys are keyed hashes, so that the cache holds no text.
        self._key = secrets.token_bytes(32)
        self._cache: OrderedDict[bytes, Found] = OrderedDict()
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._layout = LayoutRecogniser(lexicon)
        self._enumerations = EnumerationRecogniser(lexicon)
        self._truecaser = Truecaser(lexicon)
        self._is_rest_kept = all(policy.keeps(kind) for kind in MODEL_TYPES)

    @classmethod
    def load(
        cls,
        detectors: Iterable[Detector],
        policy: Policy,
        language: str = "en",
        phone_regions: Iterable[str] = DEFAULT_REGIONS,
        makers: Mapping[DetectorKind, MakeRecognisers] = NO_MAKERS,
    ) -> "Analyzer":
        """Load the models and word lists of the detectors that read the language; takes seconds.

        `makers` make the recognisers of kinds that need heavy libraries. Raises FailedPrecondition (INVALID_MODEL) if an English model has
        no dictionary or a model is not installed.
        """
        readers = [detector for detector in detectors if detector.reads(language)]
        models = {detector.name: _load_model(detector, language) for detector in readers}
        lexicon = load_lexicon(read_words(readers, language), language)
        engines = []
        for detector in readers:
            recognisers: Sequence[EntityRecognizer]
            match detector.kind:
                case DetectorKind.RULES:
                    recognisers = rule_recognisers(lexicon, policy, phone_regions)
                case DetectorKind.SPACY:
                    recognisers = [SpacyEntities(detector, language, lexicon)]
                case kind:
                    recognisers = makers[kind](detector, language)
            engines.append(DetectorEngine(detector, language, recognisers, models[detector.name]))
        return cls(engines, lexicon, policy)

    def with_policy(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "Analyzer":
        """The same models, lexicon and lock with another policy and a small cache. With `cache_size=0`, no word is remembered."""
        other = Analyzer(
            [self._for_policy(engine, policy) for engine in self._engines], self.lexicon, policy, cache_size
        )
        other._lock = self._lock
        return other

    def apart(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "Analyzer":
        """Like `with_policy`, but with separate models and a separate lock, so that long documents do not hold it up. Takes seconds."""
        engines = [
            DetectorEngine(
                engine.detector,
                self.lexicon.language,
                self._for_policy(engine, policy).recognisers,
                _load_model(engine.detector, self.lexicon.language),
            )
            for engine in self._engines
        ]
        return Analyzer(engines, self.lexicon, policy, cache_size)

    def _for_policy(self, engine: DetectorEngine, policy: Policy) -> DetectorEngine:
        if engine.detector.kind is not DetectorKind.RULES:
            return engine
        return engine.with_recognisers(with_patterns(engine.recognisers, self.lexicon, policy))

    def lexicon_of(self, languages: Iterable[str]) -> Lexicon:
        """The one lexicon, for all languages."""
        del languages
        return self.lexicon

    def lexicon_for(self, text: str) -> Lexicon:
        """The one lexicon, for all texts."""
        del text
        return self.lexicon

    def accepting_all(self) -> "Analyzer":
        """The analyzer itself: it reads every text in its one language."""
        return self

    def find(self, text: str) -> list[Finding]:
        """All findings in the text, overlapping ones included, without what the policy allows or keeps."""
        return list(self.analyze(text).findings)

    def analyze(self, text: str, ends: Sequence[int] = ()) -> Recognition:
        """All findings, overlapping ones included, and where the detectors disagree; without what the policy allows or keeps.

        If `text` consists of several texts, `ends` are their ends: code in an answer makes no name in its prompt less likely.
        Raises DeadlineExceeded (TEXT_TOO_SLOW) when the current `budget.limit` is spent.
        """
        findings: list[Finding] = []
        disagreements: list[Disagreement] = []
        technical = TechnicalText(text, ends, self.lexicon)
        for batch in batches(paragraphs(text)):
            budget.check()
            # Lock for each batch, so that a long document does not hold up short texts.
            with self._lock:
                batch_findings = self._find_batch([paragraph for _, paragraph in batch])
            for (start, _), by_detector in zip(batch, batch_findings, strict=True):
                analysis = combine(self._ballots(by_detector, technical, start))
                findings += [finding.shift(start) for finding in analysis.findings]
                disagreements += [stretch.shift(start) for stretch in analysis.disagreements]
        findings += technical.sift(self._layout.find(text))
        listed = list(technical.sift(self._enumerations.find(text, findings)))
        findings += (finding for finding in listed if finding.score >= LEAST_LISTED)
        allowed = Stretches(self.policy.find_allowed(text))
        return Recognition(
            tuple(sorted(self._drop_allowed(allowed, findings), key=lambda finding: finding.start)),
            tuple(stretch for stretch in disagreements if self._matters(allowed, stretch)),
        )

    def recognise(self, question: TextToRead) -> Recognition:
        """All personal values of a text that the policy does not keep, in this process."""
        return recognise(self, question)

    def _find_batch(self, texts: list[str]) -> list[Found]:
        digests = [hmac.digest(self._key, text.encode(), hashlib.sha256) for text in texts]
        known = {digest: self._cache[digest] for digest in digests if digest in self._cache}
        new = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in known}
        known |= dict(zip(new, self._ask_twice(list(new.values())), strict=True))
        for digest in digests:
            self._cache[digest] = known[digest]
            self._cache.move_to_end(digest)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return [known[digest] for digest in digests]

    def _ask_twice(self, texts: list[str]) -> list[Found]:
        """Ask the detectors about every text, and about the second reading of texts in small letters or capitals."""
        rewritten = {
            place: reading
            for place, text in enumerate(texts)
            if technicality(text) < 1 and (reading := self._truecaser.rewrite(text)) is not None
        }
        findings = self._ask_detectors([*texts, *rewritten.values()])
        for place, second in zip(rewritten, findings[len(texts) :], strict=True):
            # A model that reads capitals takes every word for a name; it is asked about the second reading only.
            shouts = sum(map(str.isupper, texts[place])) > SHOUTED * sum(map(str.isalpha, texts[place]))
            findings[place] = tuple(
                after if shouts and engine.has_model else _join(before, after)
                for engine, before, after in zip(self._engines, findings[place], second, strict=True)
            )
        return findings[: len(texts)]

    def _ask_detectors(self, texts: list[str]) -> list[Found]:
        """Ask the rules about every text, and the models, which take most of the time, about those with a name left."""
        findings: list[list[tuple[Finding, ...] | None]] = [[] for _ in texts]
        with ExitStack() as zones:
            if not self._cache_size:
                for engine in self._engines:
                    zones.enter_context(engine.memory_zone())
            for engine in self._engines:
                asked = [
                    place
                    for place, text in enumerate(texts)
                    if engine.detector.kind is DetectorKind.RULES or self._may_name(text, findings[place])
                ]
                answers = dict(zip(asked, engine.find([texts[place] for place in asked]), strict=True))
                for place, of_text in enumerate(findings):
                    of_text.append(tuple(answers[place]) if place in answers else None)
        return [tuple(of_text) for of_text in findings]

    def _may_name(self, text: str, answers: Iterable[tuple[Finding, ...] | None]) -> bool:
        """True if a word that no certain finding covers may be a name."""
        if not self._is_rest_kept or self.lexicon.capitalises_nouns:
            return True
        certain = Stretches(
            (finding.start, finding.end)
            for findings in answers
            for finding in findings or ()
            if finding.score >= CERTAIN
        )
        tokens = tokenise(text)
        return any(
            token.is_capitalised
            and not self.lexicon.has("never", token.bare)
            and not (starts_sentence(tokens, place) and self.lexicon.is_plain(token.bare))
            and not certain.overlap(token.start, token.end)
            for place, token in enumerate(tokens)
        )

    def _ballots(self, detected: Found, technical: TechnicalText, start: int) -> list[Ballot]:
        return [
            Ballot(engine.detector, tuple(technical.sift(findings, start)))
            for engine, findings in zip(self._engines, detected, strict=True)
            if findings is not None
        ]

    def _drop_allowed(self, allowed: Stretches, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings that the policy neither keeps by type nor allows by its words."""
        keeps = {kind: self.policy.keeps(kind) for kind in {finding.entity_type for finding in findings}}
        for finding in findings:
            if not keeps[finding.entity_type] and not allowed.overlap(finding.start, finding.end):
                yield finding

    def _matters(self, allowed: Stretches, stretch: Disagreement) -> bool:
        return not self.policy.keeps(stretch.entity_type) and not allowed.overlap(stretch.start, stretch.end)


def _join(first: tuple[Finding, ...] | None, second: tuple[Finding, ...] | None) -> tuple[Finding, ...] | None:
    """The findings of a detector in both readings of a paragraph, in order."""
    if first is None or second is None:
        return first if second is None else second
    return tuple(sorted({*first, *second}, key=lambda finding: (finding.start, finding.end)))


def _load_model(detector: Detector, language: str) -> NamesEngine:
    name = detector.model if detector.kind is DetectorKind.SPACY else ""
    if name:
        check_model(detector.name, name, detector.sha256)
    ignored = NerModelConfiguration(labels_to_ignore=IGNORED)
    engine = NamesEngine(models=[{"lang_code": language, "model_name": name}], ner_model_configuration=ignored)
    engine.load()
    return engine


def read_words(detectors: Iterable[Detector], language: str) -> Container[str]:
    """The words of the language in lower case: for English those of a model's lemmatizer, without loading the model.

    Raises FailedPrecondition (INVALID_MODEL) if no English model has a dictionary.
    """
    if language != "en":
        return read_dictionary(language)
    for detector in detectors:
        if detector.kind is not DetectorKind.SPACY or not detector.reads(language):
            continue
        tables = Lookups().from_disk(_find_model(detector.model) / "lemmatizer" / "lookups")
        if tables.has_table("lemma_index"):
            listed = (words for name in ("lemma_index", "lemma_exc") for words in tables.get_table(name).values())
            dictionary: set[str] = set(STOP_WORDS).union(*listed)
            return dictionary
    raise FailedPrecondition(
        Reason.INVALID_MODEL, "No English model has a dictionary (lemmatizer lookups); choose another model."
    )


def _find_model(name: str) -> Path:
    """The folder of a spaCy model, as `spacy.load` finds it."""
    if not spacy.util.is_package(name):
        return Path(name)
    package = Path(spacy.util.get_package_path(name))
    meta = spacy.util.load_meta(package / "meta.json")
    return package / f"{meta['lang']}_{meta['name']}-{meta['version']}"
