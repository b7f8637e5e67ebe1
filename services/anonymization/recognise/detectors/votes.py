"""Combining what several detectors found: agreement raises the score, a lone vote is reported as a disagreement."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

from services.anonymization.domain import Disagreement, Finding
from services.anonymization.recognise.analysis import Recognition
from services.anonymization.recognise.detectors.definition import Detector

# From this score on, a single detector is certain: a checksum, a title before a name, a word from the policy.
CERTAIN = 0.8
# How much of another detector's certainty is added.
SUPPORT = 0.5
MOST = 0.999
# Findings of one detector seldom overlap; this many before a place are enough to look at.
LOOK_BACK = 8


@dataclass(frozen=True)
class Ballot:
    """What one detector found in a text, counted and doubted findings together, in order."""

    detector: Detector
    findings: Sequence[Finding]

    def counts(self, finding: Finding) -> bool:
        """True if the finding reaches its threshold."""
        return finding.score >= self.detector.threshold(finding.entity_type)

    def overlapping(self, finding: Finding) -> Iterator[Finding]:
        """The ballot's findings that overlap a finding of another ballot."""
        first = max(0, bisect_left(self._starts, finding.start) - LOOK_BACK)
        near = takewhile(lambda other: other.start < finding.end, self.findings[first:])
        return (other for other in near if other.end > finding.start)

    @cached_property
    def _starts(self) -> list[int]:
        return [finding.start for finding in self.findings]


def combine(ballots: Sequence[Ballot]) -> Recognition:
    """All findings that count, with the scores of all votes, and the stretches on which the detectors disagree."""
    findings, disagreements = [], []
    for place, ballot in enumerate(ballots):
        others = [other for number, other in enumerate(ballots) if number != place]
        for finding in ballot.findings:
            supporters = [other for other in others if _support(other, finding) is not None]
            if ballot.counts(finding):
                findings.append(_raise(finding, supporters))
            if (finding.score < CERTAIN or not ballot.counts(finding)) and _is_lone(finding, others, supporters):
                names = (ballot.detector.name, *(other.detector.name for other in supporters))
                disagreements.append(Disagreement(finding.start, finding.end, finding.entity_type, names))
    return Recognition(
        tuple(sorted(findings, key=lambda finding: finding.start)),
        tuple(sorted(set(disagreements), key=lambda stretch: (stretch.start, stretch.end, stretch.entity_type))),
    )


def _raise(finding: Finding, supporters: Iterable[Ballot]) -> Finding:
    doubt = 1 - finding.score
    for other in supporters:
        supporting = _support(other, finding)
        doubt *= 1 - SUPPORT * (supporting.score if supporting else 0)
    return replace(finding, score=max(finding.score, min(MOST, 1 - doubt)))


def _support(ballot: Ballot, finding: Finding) -> Finding | None:
    """The ballot's finding of the same type at the same place."""
    same = (other for other in ballot.overlapping(finding) if other.entity_type == finding.entity_type)
    return next(filter(ballot.counts, same), None)


def _is_lone(finding: Finding, others: Iterable[Ballot], supporters: Sequence[Ballot]) -> bool:
    """True if a detector that knows the type did not find it."""
    return any(other.detector.knows(finding.entity_type) and other not in supporters for other in others)
