"""The barrier itself: find, complete, replace."""

import re

from services.anonymization.adapters.analyzer import Analyzer
from services.anonymization.adapters.mentions import Mentions
from services.anonymization.adapters.recognisers.people import People as Recogniser
from services.anonymization.adapters.surrogates import People, Surrogates
from services.anonymization.domain import Action, Anonymized, Finding, count

BETWEEN = "\n\n"
TITLE_BEFORE = re.compile(r"([^\W\d_][\w-]*)\.?\s+$")
YEAR = re.compile(r"(?:19|20)\d{2}")


class Engine:
    """Replaces personal values in texts that belong together."""

    def __init__(self, analyzer: Analyzer, surrogates: Surrogates) -> None:
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._mentions = Mentions(analyzer.lexicon)
        self._recogniser = Recogniser(analyzer.lexicon)

    def anonymize(self, texts: tuple[str, ...]) -> Anonymized:
        """The texts with surrogates, and what was found."""
        whole = BETWEEN.join(texts)
        allowed = self._analyzer.policy.allowed(whole)
        findings = self._mentions.complete(whole, self._analyzer.find(whole), allowed)
        people = People.of(whole[found.start : found.end] for found in findings if found.entity_type == "PERSON")
        changed, start = [], 0
        for text in texts:
            end = start + len(text)
            changed.append(self._replace(whole, start, end, findings, people))
            start = end + len(BETWEEN)
        return Anonymized(tuple(changed), count(findings))

    def _replace(self, whole: str, start: int, end: int, findings: list[Finding], people: People) -> str:
        parts, place = [], start
        for found in findings:
            if found.start >= start and found.end <= end:
                parts += [whole[place : found.start], self._stand_in(whole, found, people)]
                place = found.end
        return "".join(parts) + whole[place:end]

    def _stand_in(self, whole: str, found: Finding, people: People) -> str:
        value = whole[found.start : found.end]
        action = self._analyzer.policy.action(found.entity_type)
        if action is Action.SURROGATE:
            return self._surrogate(whole, found, value, people)
        year = YEAR.search(value) if action is Action.GENERALISE else None
        return year[0] if year else f"[{found.entity_type}]"

    def _surrogate(self, whole: str, found: Finding, value: str, people: People) -> str:
        match found.entity_type:
            case "PERSON":
                return self._surrogates.person(value, self._title_before(whole, found.start), people)
            case "CLIENT":
                return self._surrogates.client(value)
            case "EMAIL_ADDRESS":
                return self._surrogates.mail(value, people)
            case "ADDRESS":
                return self._surrogates.address(value)
            case kind:
                return self._surrogates.other(kind, value)

    def _title_before(self, whole: str, start: int) -> str:
        match = TITLE_BEFORE.search(whole, max(0, start - 20), start)
        return match[1] if match and self._recogniser.is_title(match[1]) else ""
