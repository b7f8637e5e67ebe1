"""Translates the review's messages to its domain and back."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.review.domain import (
    PassageKind,
    PassageMark,
    PassageView,
    QueueCounts,
    RareCombination,
)
from services.anonymization.review.estimates import ResidualEstimate
from services.anonymization.review.handlers import ResidualReport
from tailor.api.anonymization.v1 import review_pb2
from tailor.codec import decode, encode

KINDS = {
    PassageKind.SAMPLE: review_pb2.PASSAGE_KIND_SAMPLE,
    PassageKind.DISAGREEMENT: review_pb2.PASSAGE_KIND_DISAGREEMENT,
}


def to_kind(kind: int) -> PassageKind | None:
    """None for every kind."""
    return next((name for name, number in KINDS.items() if number == kind), None)


def to_mark(mark: review_pb2.PassageMark) -> PassageMark:
    return decode(PassageMark, mark)


def from_view(view: PassageView) -> review_pb2.ReviewPassage:
    queued = view.queued
    return encode(
        review_pb2.ReviewPassage,
        view,
        passage_id=queued.passage_id,
        kind=KINDS[queued.kind] if queued.passage_id else review_pb2.PASSAGE_KIND_UNSPECIFIED,
        document_id=queued.document_id,
        number=queued.number,
        source=queued.source,
        language=queued.language,
        stretches=[encode(review_pb2.PassageStretch, item) for item in sorted(view.stretches, key=lambda it: it.start)],
    )


def from_counts(counts: QueueCounts) -> review_pb2.QueueCounts:
    return encode(review_pb2.QueueCounts, counts)


def from_report(report: ResidualReport) -> review_pb2.GetResidualReportResponse:
    return encode(
        review_pb2.GetResidualReportResponse,
        report,
        overall=_from_estimate(report.overall),
        strata=map(_from_estimate, report.strata),
        sample=_from_draw(report),
        limit=_from_limit(report),
    )


def _from_draw(report: ResidualReport) -> review_pb2.ResidualSample | None:
    if report.draw is None:
        return None
    moment = Timestamp()
    moment.FromMilliseconds(report.draw.time_ms)
    return encode(review_pb2.ResidualSample, report.draw, create_time=moment, passages_now=report.passages_now)


def _from_limit(report: ResidualReport) -> review_pb2.ResidualLimit | None:
    if report.limit is None:
        return None
    return encode(review_pb2.ResidualLimit, report.limit, met=not report.refusal, message=report.refusal)


def from_combination(item: RareCombination) -> review_pb2.RareCombination:
    return encode(review_pb2.RareCombination, item)


def _from_estimate(item: ResidualEstimate) -> review_pb2.ResidualEstimate:
    stratum = item.stratum
    return encode(
        review_pb2.ResidualEstimate,
        item,
        source=stratum.source,
        language=stratum.language,
        passages=stratum.passages,
        drawn=stratum.drawn,
    )
