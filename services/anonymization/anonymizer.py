"""The barrier itself: find, complete, replace."""

import re
from dataclasses import replace

from services.anonymization.domain import (
    ENTITY_TYPES,
    NO_LABELS,
    Action,
    Anonymized,
    Change,
    Finding,
    Labels,
    Policy,
    count,
    merge,
)
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.recognisers.people import People as Recogniser
from services.anonymization.surrogates import coarse
from services.anonymization.surrogates.surrogates import People, Surrogates
from tailor.errors import ResourceExhausted
from tailor.logging import get_logger

log = get_logger(__name__)

BETWEEN = "\n\n"
TITLE_BEFORE = re.compile(r"([^\W\d_][\w-]*)\.?\s+$")
FIGURES = {"DATE_TIME", "MONEY", "AGE"}


class Engine:
    """Replaces personal values in texts that belong together."""

    def __init__(self, analyzer: Analyzer, surrogates: Surrogates) -> None:
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._mentions = Mentions(analyzer.lexicon)
        self._recogniser = Recogniser(analyzer.lexicon)

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        """The texts with surrogates, and what was found."""
        whole = BETWEEN.join(texts)
        findings = self._find(whole, labels)
        people = People.of(whole[found.start : found.end] for found in findings if found.entity_type == "PERSON")
        values = ((found.entity_type, whole[found.start : found.end]) for found in findings)
        surrogates = self._surrogates.beside(whole, values)
        changes = [
            self._change(whole, found, self.policy.action(found.entity_type, labels), surrogates, people)
            for found in findings
        ]
        own, start = [], 0
        for text in texts:
            own.append(_within(changes, start, start + len(text)))
            start += len(text) + len(BETWEEN)
        changed = tuple(map(_replaced, texts, own))
        return Anonymized(changed, count(findings), tuple(own))

    @property
    def policy(self) -> Policy:
        """What the engine goes by."""
        return self._analyzer.policy

    def _find(self, whole: str, labels: Labels) -> list[Finding]:
        """What the policy does not keep in documents with these labels."""
        kept = {kind for kind in ENTITY_TYPES if self.policy.action(kind, labels) is Action.KEEP}
        allowed = self.policy.allowed(whole)
        found = [
            each
            for each in self._analyzer.find(whole)
            if self.policy.action(each.entity_type, labels) is not Action.KEEP
        ]
        figures = [
            figure
            for figure in coarse.find(whole, FIGURES - kept)
            if not any(figure.start < end and start < figure.end for start, end in allowed)
        ]
        # A figure stands for itself alone: that it occurs again says nothing.
        return merge([*self._mentions.complete(whole, found, allowed), *figures], whole)

    def _change(self, whole: str, found: Finding, action: Action, surrogates: Surrogates, people: People) -> Change:
        value = whole[found.start : found.end]
        replacement = None
        if action is Action.SURROGATE:
            try:
                replacement = self._surrogate(whole, found, surrogates, people)
            except ResourceExhausted:
                # A value of so few forms that all are taken is masked, rather than hold up its document for ever.
                log.warning("no surrogate left", entity_type=found.entity_type)
        elif action is Action.GENERALISE:
            replacement = coarse.generalise(found.entity_type, value, self.policy.coarseness)
        masked = f"[{found.entity_type}]" if replacement is None else replacement
        return Change(found.start, found.end, found.entity_type, action, masked)

    def _surrogate(self, whole: str, found: Finding, surrogates: Surrogates, people: People) -> str:
        value = whole[found.start : found.end]
        match found.entity_type:
            case "PERSON":
                return surrogates.person(value, self._title_before(whole, found.start), people)
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
        return match[1] if match and self._recogniser.is_title(match[1]) else ""


def _within(changes: list[Change], start: int, end: int) -> tuple[Change, ...]:
    """The changes of one of the texts, at their places in it; a value over two texts is replaced in both."""
    mine = (change for change in changes if change.start < end and change.end > start)
    return tuple(
        replace(change, start=max(change.start, start) - start, end=min(change.end, end) - start) for change in mine
    )


def _replaced(text: str, changes: tuple[Change, ...]) -> str:
    parts, place = [], 0
    for change in changes:
        parts += [text[place : change.start], change.replacement]
        place = change.end
    return "".join(parts) + text[place:]
