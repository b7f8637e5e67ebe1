"""The analyzer of a running service: children read the texts, this process has only the words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.anonymization.adapters.children.messages import Installation, Operation, ReadRequest
from services.anonymization.adapters.children.pool import Parent, Pool
from services.anonymization.domain import Policy
from services.anonymization.recognise.analysis import Recognition, TextToRead
from services.anonymization.recognise.analyzer import CACHE_SIZE, read_words
from services.anonymization.recognise.detectors.definition import Detector
from services.anonymization.recognise.languages.lexicons import Lexicons, load_lexicon
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.ports import SMALL_CACHE_SIZE, TextAnalyzer
from services.anonymization.settings import Settings

# A document, a row or a preview does not wait for a single long text.
CHILDREN = 2
# Processor time and memory of one text. Rules and spaCy's small models take 30 to 60 microseconds for a character on a quick core; the
# base includes loading the models of a language that is new to the child.
BASE_CPU_SECONDS, CPU_SECONDS_PER_CHARACTER = 20.0, 0.001
BASE_BYTES, BYTES_PER_CHARACTER = 2 * 2**30, 4_096


@dataclass(frozen=True)
class ChildAnalyzer(TextAnalyzer):
    """Reads every text in a child with limits of processor time and memory by the text's length. Thread-safe."""

    policy: Policy
    installation: Installation
    parent: Parent
    pool: Pool
    lexicons: Lexicons
    cache_size: int
    accepts_all: bool = False

    @classmethod
    def from_settings(cls, settings: Settings, detectors: tuple[Detector, ...], policy: Policy) -> "ChildAnalyzer":
        """The analyzer of an installation. Raises what `start` raises."""
        is_held = settings.uncovered_languages == "hold"
        installation = Installation(detectors, policy, settings.languages, settings.phone_regions, is_held)
        return cls.start(installation, CACHE_SIZE)

    @classmethod
    def start(cls, installation: Installation, cache_size: int) -> "ChildAnalyzer":
        """Start the process that forks children. Raises FailedPrecondition (INVALID_MODEL, LANGUAGE_NOT_COVERED)."""
        parent = Parent(installation)
        lexicons = Lexicons(
            lambda code: load_lexicon(read_words(installation.detectors, code), code), installation.languages[0]
        )
        analyzer = cls(installation.policy, installation, parent, Pool(parent, CHILDREN), lexicons, cache_size)
        analyzer.find("")
        return analyzer

    @property
    def lexicon(self) -> Lexicon:
        return self.lexicons.of(())

    def lexicon_of(self, languages: Iterable[str]) -> Lexicon:
        return self.lexicons.of(languages)

    def lexicon_for(self, text: str) -> Lexicon:
        sections = self._ask(Operation.SECTIONS, TextToRead(text)).sections
        return self.lexicon_of(
            section.language for section in sections if section.language in self.installation.languages
        )

    def analyze(self, text: str, ends: Sequence[int] = ()) -> Recognition:
        return self._ask(Operation.ANALYZE, TextToRead(text, tuple(ends)))

    def recognise(self, question: TextToRead) -> Recognition:
        return self._ask(Operation.RECOGNISE, question)

    def with_policy(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "ChildAnalyzer":
        return replace(self, policy=policy, cache_size=cache_size)

    def apart(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "ChildAnalyzer":
        analyzer = replace(self, policy=policy, cache_size=cache_size, pool=Pool(self.parent, CHILDREN))
        # The first text does not wait for the models.
        analyzer.find("")
        return analyzer

    def accepting_all(self) -> "ChildAnalyzer":
        return replace(self, accepts_all=True)

    def _ask(self, operation: Operation, question: TextToRead) -> Recognition:
        length = len(question.text)
        cpu_seconds = BASE_CPU_SECONDS + CPU_SECONDS_PER_CHARACTER * length
        memory = BASE_BYTES + BYTES_PER_CHARACTER * length
        request = ReadRequest(operation, question, self.policy, self.cache_size, self.accepts_all, cpu_seconds, memory)
        return self.pool.ask(request)
