"""Find personal values, find their other mentions, replace them."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from services.anonymization.domain import (
    ENTITY_TYPES,
    NO_LABELS,
    Action,
    Anonymized,
    Change,
    Disagreement,
    Finding,
    Policy,
    apply_changes,
    count,
    merge,
)
from services.anonymization.ports import Anonymizer
from services.anonymization.recognise import budget
from services.anonymization.recognise.analysis import Recognition, TextToRead
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.lists import NO_LISTS, TermLists
from services.anonymization.recognise.obfuscated import PlainText, undo
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.recognise.recognition import outside
from services.anonymization.review.terms import NO_TERMS, HashedTerms
from services.anonymization.surrogates import generalisation
from services.anonymization.surrogates.known_values import NAMES, PassedValues
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import ResourceExhausted
from tailor.logging import get_logger
from tailor.values import Labels

log = get_logger(__name__)

SEPARATOR = "\n\n"
FIGURES = {"DATE_TIME", "MONEY", "AGE", "POSTCODE"}
DEFAULT_SECONDS_PER_TEXT = 300.0
TITLE_BEFORE = re.compile(r"([^\W\d_][\w-]*)\.?\s+$")
T = TypeVar("T", Change, Disagreement)


class TextAnonymizer(Anonymizer):
    """Applies the analyzer's policy. Thread-safe."""

    def __init__(
        self,
        analyzer: TextAnalyzer,
        surrogates: Surrogates,
        seconds_per_text: float = DEFAULT_SECONDS_PER_TEXT,
        terms: HashedTerms = NO_TERMS,
        *,
        lists: TermLists = NO_LISTS,
        detectors_digest: str = "",
    ) -> None:
        self._detectors_digest = detectors_digest
        self._analyzer = analyzer
        self._lists = lists
        self._surrogates = surrogates
        self._terms = terms
        self._seconds_per_text = seconds_per_text

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        """Raises DeadlineExceeded (TEXT_TOO_SLOW) if the texts take longer than a text may, or the caller of `budget.limit` has gone."""
        with budget.limit(self._seconds_per_text):
            return self._anonymize(texts, labels, passed)

    def _anonymize(self, texts: tuple[str, ...], labels: Labels, passed: tuple[str, ...] = ()) -> Anonymized:
        # Texts that passed before are read with the others, so that a value has the same type in all of them.
        plains = [undo(text) for text in (*passed, *texts)]
        places = _join([plain.text for plain in plains])
        whole = SEPARATOR.join(plain.text for plain in plains)
        recognition, findings = self._recognise(whole, tuple(end for _, end in places), labels)
        people = People.of(
            whole[finding.start : finding.end] for finding in findings if finding.entity_type == "PERSON"
        )
        values = ((finding.entity_type, whole[finding.start : finding.end]) for finding in findings)
        surrogates = self._surrogates.for_document(whole, values)
        if passed:
            findings = self._drop_passed(whole, findings, places[len(passed)][0], surrogates, people)
        ends = [section.end for section in recognition.sections]
        # The last one is for a text that was read in one language without asking.
        by_section = [
            *(
                surrogates.in_language(section.language, self._analyzer.lexicon_of((section.reader,)))
                for section in recognition.sections
            ),
            surrogates,
        ]
        changes = [
            self._change(whole, finding, labels, by_section[bisect_right(ends, finding.start)], people)
            for finding in findings
        ]
        changes_by_text, disagreements_by_text = [], []
        for plain, (start, end) in list(zip(plains, places, strict=True))[len(passed) :]:
            changes_by_text.append(_at_given(_within(changes, start, end), plain))
            disagreements_by_text.append(_at_given(_within(recognition.disagreements, start, end), plain))
        return Anonymized(
            tuple(map(apply_changes, texts, changes_by_text)),
            count(findings),
            tuple(changes_by_text),
            frozenset(surrogates.issued),
            self._policy.digest,
            tuple(disagreements_by_text),
            self._detectors_digest,
            tuple(sorted({section.language for section in recognition.sections if section.rules_only})),
        )

    @property
    def _policy(self) -> Policy:
        return self._analyzer.policy

    def _recognise(self, whole: str, ends: tuple[int, ...], labels: Labels) -> tuple[Recognition, list[Finding]]:
        """The answer of the detectors, and its values with the figures that the policy does not keep."""
        # Not in the analyzer, whose cache of paragraphs notices neither another decision of a review nor a changed file.
        (personal, never), (listed, allowed) = self._terms.search(whole), self._lists.search(whole)
        never = [*never, *allowed]
        recognition = self._analyzer.recognise(
            TextToRead(whole, ends, labels, tuple(listed), tuple(personal), tuple(never))
        )
        kept = {kind for kind in ENTITY_TYPES if self._policy.action(kind, labels) is Action.KEEP}
        figures = outside(generalisation.find(whole, FIGURES - kept), [*recognition.allowed, *never])
        # Figures have no other mentions: the same amount or date elsewhere may mean something else.
        return recognition, merge([*recognition.findings, *figures], whole)

    def _drop_passed(
        self, whole: str, findings: list[Finding], start: int, surrogates: Surrogates, people: People
    ) -> list[Finding]:
        """The findings from `start` on whose values do not occur in the text before it; the others are noted as issued.

        A suppressed value, and one that a review calls personal, must go even if it passed once.
        """
        known = PassedValues(whole[:start], findings)
        personal = Stretches((finding.start, finding.end) for finding in self._terms.search(whole)[0])
        new = []
        for finding in findings:
            kind, value = finding.entity_type, whole[finding.start : finding.end]
            if finding.end <= start:
                continue
            must_go = surrogates.is_suppressed(kind, value, people) or personal.overlap(finding.start, finding.end)
            if must_go or not known.has(kind, value):
                new.append(finding)
            else:
                # A person's surrogate that is read as a company here must still be found when the person is erased.
                for noted in {kind, "PERSON"} if kind in NAMES else {kind}:
                    surrogates.note(noted, value)
        return new

    def _change(self, whole: str, finding: Finding, labels: Labels, surrogates: Surrogates, people: People) -> Change:
        value, action = whole[finding.start : finding.end], self._policy.action(finding.entity_type, labels)
        replacement = None
        if action is Action.SURROGATE:
            try:
                replacement = self._surrogate(whole, finding, surrogates, people)
            except ResourceExhausted:
                # Mask a value if all of its few forms are taken, so that its document does not wait for ever.
                log.warning("no surrogate left", entity_type=finding.entity_type)
        elif action is Action.GENERALISE:
            replacement = generalisation.generalise(finding.entity_type, value, self._policy.coarseness)
        if replacement is None:
            replacement = f"[{finding.entity_type}]"
        return Change(finding.start, finding.end, finding.entity_type, action, replacement)

    def _surrogate(self, whole: str, finding: Finding, surrogates: Surrogates, people: People) -> str:
        value = whole[finding.start : finding.end]
        match finding.entity_type:
            case "PERSON":
                return surrogates.person(value, self._title_before(whole, finding.start, surrogates.lexicon), people)
            case "CLIENT":
                return surrogates.client(value)
            case "EMAIL_ADDRESS":
                return surrogates.mail(value, people)
            case "ADDRESS":
                return surrogates.address(value)
            case kind:
                return surrogates.other(kind, value)

    def _title_before(self, whole: str, start: int, lexicon: Lexicon) -> str:
        match = TITLE_BEFORE.search(whole, max(0, start - 20), start)
        return match[1] if match and lexicon.is_title(match[1]) else ""


def _join(texts: Iterable[str]) -> list[tuple[int, int]]:
    """The place [start, end) of each text in all of them, joined by SEPARATOR."""
    places, start = [], 0
    for text in texts:
        places.append((start, start + len(text)))
        start += len(text) + len(SEPARATOR)
    return places


def _within(stretches: Iterable[T], start: int, end: int) -> list[T]:
    """The stretches in one of the texts, at their places in it. One that spans two texts is in both."""
    return [
        replace(stretch, start=max(stretch.start, start) - start, end=min(stretch.end, end) - start)
        for stretch in stretches
        if stretch.start < end and stretch.end > start and start < end
    ]


def _at_given(stretches: Iterable[T], plain: PlainText) -> tuple[T, ...]:
    """The stretches of a plain text at their places in the text as it was given."""
    placed = ((stretch, plain.place(stretch.start, stretch.end)) for stretch in stretches)
    return tuple(replace(stretch, start=start, end=end) for stretch, (start, end) in placed)
