"""All personal values of one text: the work that grows with its length, and that a child process does for a running service."""

from collections.abc import Iterable

from services.anonymization.domain import Action, Finding
from services.anonymization.recognise.analysis import Place, Recognition, TextToRead
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.ports import TextAnalyzer


def recognise(analyzer: TextAnalyzer, question: TextToRead) -> Recognition:
    """Read a text under the analyzer's policy. Raises DeadlineExceeded (TEXT_TOO_SLOW) and InvalidArgument (LANGUAGE_NOT_COVERED)."""
    text, policy, labels = question.text, analyzer.policy, question.labels
    analysis = analyzer.analyze(text, question.ends)
    allowed = policy.find_allowed(text)
    detected = outside([*analysis.findings, *question.listed], question.never)
    findings = [
        finding
        for finding in (*detected, *question.personal)
        if policy.action(finding.entity_type, labels) is not Action.KEEP
    ]
    mentions = Mentions(analyzer.lexicon_of(section.reader for section in analysis.sections))
    found = mentions.complete(text, findings, [*allowed, *question.never])
    return Recognition(tuple(found), analysis.disagreements, analysis.sections, tuple(allowed))


def outside(findings: Iterable[Finding], places: Iterable[Place]) -> list[Finding]:
    """The findings that overlap none of the places."""
    stretches = Stretches(places)
    return [finding for finding in findings if not stretches.overlap(finding.start, finding.end)]
