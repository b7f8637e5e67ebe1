"""Reading a text section by section, each with the detectors of its language."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from services.anonymization.domain import Disagreement, Finding, Policy
from services.anonymization.recognise.analysis import LanguageSection, Recognition, TextToRead
from services.anonymization.recognise.languages.lexicons import Lexicons
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.ports import SMALL_CACHE_SIZE, TextAnalyzer
from services.anonymization.recognise.recognition import recognise
from tailor.errors import InvalidArgument, Reason


class SectionAnalyzer(TextAnalyzer):
    """Loads the detectors of a language when a text in it first comes. Thread-safe.

    `languages` are admitted. With `is_held`, a text in another language is refused; otherwise that section is read by rules only.
    `sections` are those of a text that consists of several texts with the given ends, in order, without gaps.
    """

    def __init__(
        self,
        load: Callable[[str], TextAnalyzer],
        sections: Callable[[str, Sequence[int]], list[LanguageSection]],
        languages: tuple[str, ...],
        policy: Policy,
        is_held: bool = True,
    ) -> None:
        self.policy = policy
        self._load = load
        self._sections = sections
        self._languages = languages
        self._is_held = is_held
        self._analyzers: dict[str, TextAnalyzer] = {}
        self._lexicons = Lexicons(lambda code: self._analyzer(code).lexicon, languages[0])
        self._lock = threading.Lock()

    @property
    def lexicon(self) -> Lexicon:
        return self._lexicons.of(())

    def lexicon_of(self, languages: Iterable[str]) -> Lexicon:
        return self._lexicons.of(languages)

    def lexicon_for(self, text: str) -> Lexicon:
        sections = self._sections(text, ())
        return self.lexicon_of(section.language for section in sections if section.language in self._languages)

    def analyze(self, text: str, ends: Sequence[int] = ()) -> Recognition:
        sections = tuple(map(self._admit, self._sections(text, ends)))
        findings: list[Finding] = []
        disagreements: list[Disagreement] = []
        for section in sections:
            ends_within = [end - section.start for end in ends if section.start < end < section.end]
            analysis = self._analyzer(section.reader).analyze(text[section.start : section.end], ends_within)
            findings += [finding.shift(section.start) for finding in analysis.findings]
            disagreements += [stretch.shift(section.start) for stretch in analysis.disagreements]
        return Recognition(tuple(findings), tuple(disagreements), sections)

    def recognise(self, question: TextToRead) -> Recognition:
        """All personal values of a text that the policy does not keep, in this process."""
        return recognise(self, question)

    def with_policy(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "SectionAnalyzer":
        return self._derive(lambda code: self._analyzer(code).with_policy(policy, cache_size), policy)

    def apart(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "SectionAnalyzer":
        analyzer = self._derive(lambda code: self._analyzer(code).apart(policy, cache_size), policy)
        # The first text does not wait for the models.
        analyzer.lexicon_of(self._languages[:1])
        return analyzer

    def accepting_all(self) -> "SectionAnalyzer":
        analyzer = self._derive(self._analyzer, self.policy)
        analyzer._is_held = False
        return analyzer

    def _derive(self, load: Callable[[str], TextAnalyzer], policy: Policy) -> "SectionAnalyzer":
        return SectionAnalyzer(load, self._sections, self._languages, policy, self._is_held)

    def _admit(self, section: LanguageSection) -> LanguageSection:
        if section.language in self._languages:
            return section
        if self._is_held:
            raise InvalidArgument(
                Reason.LANGUAGE_NOT_COVERED,
                f"A passage from character {section.start} to {section.end} is in the language `{section.language}` (`und`: unknown),"
                " which no detector of this installation covers. Add a detector for it and its code to TAILOR_LANGUAGES, or let it pass"
                " masked by rules only (TAILOR_UNCOVERED_LANGUAGES=rules); then publish or send the text again.",
            )
        return replace(section, rules_only=True)

    def _analyzer(self, code: str) -> TextAnalyzer:
        with self._lock:
            if code not in self._analyzers:
                self._analyzers[code] = self._load(code)
            return self._analyzers[code]
