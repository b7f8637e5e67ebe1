"""Find personal values, find their other mentions, replace them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.anonymization.domain import (
    ENTITY_TYPES,
    NO_LABELS,
    Action,
    Anonymized,
    Change,
    Finding,
    Policy,
    count,
    merge,
)
from services.anonymization.ports import Anonymizer, ReviewedTerms
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.review.terms import NO_TERMS
from services.anonymization.surrogates import coarse
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import ResourceExhausted
from tailor.logging import get_logger
from tailor.words import Labels

log = get_logger(__name__)

SEPARATOR = "\n\n"
TITLE_BEFORE = re.compile(r"([^\W\d_][\w-]*)\.?\s+$")
FIGURES = {"DATE_TIME", "MONEY", "AGE"}


class TextAnonymizer(Anonymizer):
    """Applies the analyzer's policy. Thread-safe."""

    def __init__(self, analyzer: Analyzer, surrogates: Surrogates, terms: ReviewedTerms = NO_TERMS) -> None:
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._terms = terms
        self._mentions = Mentions(analyzer.lexicon)

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        whole = SEPARATOR.join(texts)
        findings = self._find(whole, labels)
        people = People.of(
            whole[finding.start : finding.end] for finding in findings if finding.entity_type == "PERSON"
        )
        values = ((finding.entity_type, whole[finding.start : finding.end]) for finding in findings)
        surrogates = self._surrogates.for_document(whole, values)
        changes = [
            self._change(whole, finding, self._policy.action(finding.entity_type, labels), surrogates, people)
            for finding in findings
        ]
        changes_by_text, start = [], 0
        for text in texts:
            changes_by_text.append(_within(changes, start, start + len(text)))
            start += len(text) + len(SEPARATOR)
        return Anonymized(
            tuple(map(_apply, texts, changes_by_text)),
            count(findings),
            tuple(changes_by_text),
            frozenset(surrogates.issued),
            self._policy.digest,
        )

    @property
    def _policy(self) -> Policy:
        return self._analyzer.policy

    def _find(self, whole: str, labels: Labels) -> list[Finding]:
        """The findings that the policy does not keep in documents with these labels."""
        kept_types = {kind for kind in ENTITY_TYPES if self._policy.action(kind, labels) is Action.KEEP}
        # Not in the analyzer, whose cache of paragraphs does not notice when a review decides about another term.
        personal, never = self._terms.search(whole)
        allowed = [*self._policy.find_allowed(whole), *never]
        findings = [
            finding
            for finding in (*_outside(self._analyzer.find(whole), never), *personal)
            if self._policy.action(finding.entity_type, labels) is not Action.KEEP
        ]
        figures = _outside(coarse.find(whole, FIGURES - kept_types), allowed)
        # Figures have no other mentions: the same amount or date elsewhere may mean something else.
        return merge([*self._mentions.complete(whole, findings, allowed), *figures], whole)

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
                return surrogates.person(value, self._title_before(whole, finding.start), people)
            case "CLIENT":
                return surrogates.client(value)
            case "EMAIL_ADDRESS":
                return surrogates.mail(value, people)
            case "ADDRESS":
                return surrogates.address(value)
            case kind:
                return surrogates.other(kind, value)

    def _title_before(self, whole: str, start: int) -> str:
        match = TITLE_BEFORE.search(whole, max(0, start - 20), start)
        return match[1] if match and self._analyzer.lexicon.is_title(match[1]) else ""


def _outside(findings: Iterable[Finding], stretches: Sequence[tuple[int, int]]) -> list[Finding]:
    """The findings that overlap none of the stretches."""
    return [
        finding
        for finding in findings
        if not any(finding.start < end and start < finding.end for start, end in stretches)
    ]


def _within(changes: Sequence[Change], start: int, end: int) -> tuple[Change, ...]:
    """The changes in one of the texts, at their places in it. A value that spans two texts is replaced in both."""
    return tuple(
        replace(change, start=max(change.start, start) - start, end=min(change.end, end) - start)
        for change in changes
        if change.start < end and change.end > start
    )


def _apply(text: str, changes: Sequence[Change]) -> str:
    parts, place = [], 0
    for change in changes:
        parts += [text[place : change.start], change.replacement]
        place = change.end
    return "".join(parts) + text[place:]
