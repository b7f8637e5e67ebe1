"""All personal values of one text: the work that grows with its length, and that a child process does for a running service."""

from collections.abc import Iterable
from dataclasses import dataclass

from services.anonymization.domain import ENTITY_TYPES, NO_LABELS, Action, Disagreement, Finding, merge
from services.anonymization.recognise.analysis import LanguageSection
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.surrogates import coarse
from tailor.words import Labels

FIGURES = {"DATE_TIME", "MONEY", "AGE", "POSTCODE"}
Place = tuple[int, int]


@dataclass(frozen=True)
class Question:
    """A text to be read, and what is known of it before.

    If it consists of several texts, `ends` are their ends. `listed` are findings of the operator's files, `personal` those of reviews,
    which nothing removes. What overlaps a stretch in `never` is no value. The labels choose the policy's rules.
    """

    text: str
    ends: tuple[int, ...] = ()
    labels: Labels = NO_LABELS
    listed: tuple[Finding, ...] = ()
    personal: tuple[Finding, ...] = ()
    never: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """The values that the policy does not keep, in order and without overlaps; where detectors disagree; and the text's languages."""

    findings: tuple[Finding, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    sections: tuple[LanguageSection, ...] = ()


def recognise(analyzer: TextAnalyzer, question: Question) -> Recognition:
    """Read a text under the analyzer's policy. Raises DeadlineExceeded (TEXT_TOO_SLOW) and InvalidArgument (LANGUAGE_NOT_COVERED)."""
    text, policy, labels = question.text, analyzer.policy, question.labels
    analysis = analyzer.analyze(text, question.ends)
    kept = {kind for kind in ENTITY_TYPES if policy.action(kind, labels) is Action.KEEP}
    allowed = [*policy.find_allowed(text), *question.never]
    detected = _outside([*analysis.findings, *question.listed], question.never)
    findings = [
        finding
        for finding in (*detected, *question.personal)
        if policy.action(finding.entity_type, labels) is not Action.KEEP
    ]
    figures = _outside(coarse.find(text, FIGURES - kept), allowed)
    mentions = Mentions(analyzer.lexicon_of(section.reader for section in analysis.sections))
    # Figures have no other mentions: the same amount or date elsewhere may mean something else.
    found = merge([*mentions.complete(text, findings, allowed), *figures], text)
    return Recognition(tuple(found), analysis.disagreements, analysis.sections)


def _outside(findings: Iterable[Finding], places: Iterable[Place]) -> list[Finding]:
    """The findings that overlap none of the places."""
    stretches = Stretches(places)
    return [finding for finding in findings if not stretches.overlap(finding.start, finding.end)]
