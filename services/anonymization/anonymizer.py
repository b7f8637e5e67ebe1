"""Find personal values, find their other mentions, replace them."""

import re
from collections.abc import Iterable, Sequence
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
    count,
    merge,
)
from services.anonymization.ports import Anonymizer
from services.anonymization.recognise import budget
from services.anonymization.recognise.disguises import PlainText, undo
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.text_analyzer import TextAnalyzer
from services.anonymization.surrogates import coarse
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.replacement import apply
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import ResourceExhausted
from tailor.logging import get_logger
from tailor.words import Labels

log = get_logger(__name__)

SEPARATOR = "\n\n"
DEFAULT_SECONDS_PER_TEXT = 300.0
TITLE_BEFORE = re.compile(r"([^\W\d_][\w-]*)\.?\s+$")
FIGURES = {"DATE_TIME", "MONEY", "AGE"}
T = TypeVar("T", Change, Disagreement)


class TextAnonymizer(Anonymizer):
    """Applies the analyzer's policy. Thread-safe."""

    def __init__(
        self, analyzer: TextAnalyzer, surrogates: Surrogates, seconds_per_text: float = DEFAULT_SECONDS_PER_TEXT
    ) -> None:
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._seconds_per_text = seconds_per_text

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        """Raises DeadlineExceeded (TEXT_TOO_SLOW) if the texts take longer than a text may, or the caller of `budget.limit` has gone."""
        with budget.limit(self._seconds_per_text):
            return self._anonymize(texts, labels)

    def _anonymize(self, texts: tuple[str, ...], labels: Labels) -> Anonymized:
        given = SEPARATOR.join(texts)
        plain = undo(given)
        whole = plain.text
        analysis = self._analyzer.analyze(whole)
        lexicon = self._analyzer.lexicon_of(section.reader for section in analysis.sections)
        findings = self._complete(whole, analysis.findings, labels, Mentions(lexicon))
        people = People.of(
            whole[finding.start : finding.end] for finding in findings if finding.entity_type == "PERSON"
        )
        values = ((finding.entity_type, whole[finding.start : finding.end]) for finding in findings)
        surrogates = self._surrogates.for_document(whole, values)
        by_section = [
            (section.end, surrogates.in_language(section.language, self._analyzer.lexicon_of((section.reader,))))
            for section in analysis.sections
        ]
        changes = [
            self._change(
                whole, finding, self._policy.action(finding.entity_type, labels), _at(by_section, finding.start, surrogates), people
            )
            for finding in findings
        ]  # fmt: skip
        changes = [_at_given(change, plain) for change in changes]
        disagreements = [_at_given(stretch, plain) for stretch in analysis.disagreements]
        changes_by_text, disagreements_by_text, start = [], [], 0
        for text in texts:
            changes_by_text.append(_within(changes, start, start + len(text)))
            disagreements_by_text.append(_within(disagreements, start, start + len(text)))
            start += len(text) + len(SEPARATOR)
        return Anonymized(
            tuple(map(apply, texts, changes_by_text)),
            count(findings),
            tuple(changes_by_text),
            frozenset(surrogates.issued),
            self._policy.digest,
            tuple(disagreements_by_text),
            tuple(sorted({section.language for section in analysis.sections if section.rules_only})),
        )

    @property
    def _policy(self) -> Policy:
        return self._analyzer.policy

    def _complete(self, whole: str, found: Iterable[Finding], labels: Labels, mentions: Mentions) -> list[Finding]:
        """The findings and their other mentions that the policy does not keep in documents with these labels."""
        kept_types = {kind for kind in ENTITY_TYPES if self._policy.action(kind, labels) is Action.KEEP}
        allowed = self._policy.find_allowed(whole)
        stretches = Stretches(allowed)
        findings = [finding for finding in found if self._policy.action(finding.entity_type, labels) is not Action.KEEP]
        figures = [
            figure
            for figure in coarse.find(whole, FIGURES - kept_types)
            if not stretches.overlap(figure.start, figure.end)
        ]
        # Figures have no other mentions: the same amount or date elsewhere may mean something else.
        return merge([*mentions.complete(whole, findings, allowed), *figures], whole)

    def _change(self, whole: str, finding: Finding, action: Action, surrogates: Surrogates, people: People) -> Change:
        value = whole[finding.start : finding.end]
        replacement = None
        if action is Action.SURROGATE:
            try:
                replacement = self._surrogate(whole, finding, surrogates, people)
            except ResourceExhausted:
                # Mask a value if all of its few forms are taken, so that its document does not wait for ever.
                log.warning("no surrogate left", entity_type=finding.entity_type)
        elif action is Action.GENERALISE:
            replacement = coarse.generalise(finding.entity_type, value, self._policy.coarseness)
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


def _at_given(stretch: T, plain: PlainText) -> T:
    """The stretch at its place in the text as it was given."""
    start, end = plain.place(stretch.start, stretch.end)
    return replace(stretch, start=start, end=end)


def _at(by_section: Iterable[tuple[int, Surrogates]], start: int, default: Surrogates) -> Surrogates:
    """The surrogates of the section at a place."""
    return next((surrogates for end, surrogates in by_section if start < end), default)


def _within(stretches: Sequence[T], start: int, end: int) -> tuple[T, ...]:
    """The stretches in one of the texts, at their places in it. One that spans two texts is in both."""
    return tuple(
        replace(stretch, start=max(stretch.start, start) - start, end=min(stretch.end, end) - start)
        for stretch in stretches
        if stretch.start < end and stretch.end > start
    )
