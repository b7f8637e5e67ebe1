"""Translates the review's messages to its domain and back."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.anonymization.review.domain import (
    PassageKind,
    PassageMark,
    PassageStretch,
    PassageView,
    QueueCounts,
    RareCombination,
    ResidualBound,
    StretchKind,
)
from services.anonymization.review.estimates import ResidualEstimate, ResidualShare
from services.anonymization.review.handlers import ResidualReport
from tailor.api.anonymization.v1 import review_pb2

KINDS = {
    PassageKind.SAMPLE: review_pb2.PASSAGE_KIND_SAMPLE,
    PassageKind.DISAGREEMENT: review_pb2.PASSAGE_KIND_DISAGREEMENT,
}
STRETCH_KINDS = {
    StretchKind.REPLACED: review_pb2.STRETCH_KIND_REPLACED,
    StretchKind.DISAGREEMENT: review_pb2.STRETCH_KIND_DISAGREEMENT,
}
BOUNDS = {
    ResidualBound.UPPER: review_pb2.RESIDUAL_BOUND_UPPER,
    ResidualBound.POINT: review_pb2.RESIDUAL_BOUND_POINT,
}


def to_kind(kind: int) -> PassageKind | None:
    """None for every kind."""
    return next((name for name, number in KINDS.items() if number == kind), None)


def to_mark(mark: review_pb2.PassageMark) -> PassageMark:
    return PassageMark(mark.start, mark.end, mark.entity_type)


def from_view(view: PassageView) -> review_pb2.ReviewPassage:
    queued = view.queued
    return review_pb2.ReviewPassage(
        passage_id=queued.passage_id,
        kind=KINDS[queued.kind] if queued.passage_id else review_pb2.PASSAGE_KIND_UNSPECIFIED,
        document_id=queued.document_id,
        number=queued.number,
        source=queued.source,
        language=queued.language,
        text=view.text,
        start=view.start,
        end=view.end,
        stretches=map(_from_stretch, sorted(view.stretches, key=lambda item: item.start)),
        replaced_known=view.replaced_known,
        entity_types=view.entity_types,
    )


def from_counts(counts: QueueCounts) -> review_pb2.QueueCounts:
    return review_pb2.QueueCounts(sample=counts.sample, disagreement=counts.disagreement)


def from_report(report: ResidualReport) -> review_pb2.GetResidualReportResponse:
    message = review_pb2.GetResidualReportResponse(
        overall=_from_estimate(report.overall),
        strata=map(_from_estimate, report.strata),
        waiting=from_counts(report.waiting),
        rare_combinations=report.rare_combinations,
        rules_only_documents=report.rules_only_documents,
    )
    if report.draw is not None:
        moment = Timestamp()
        moment.FromMilliseconds(report.draw.time_ms)
        message.sample.CopyFrom(
            review_pb2.ResidualSample(
                sample_id=report.draw.sample_id,
                create_time=moment,
                seed=report.draw.seed,
                passages_now=report.passages_now,
            )
        )
    if report.limit is not None:
        message.limit.CopyFrom(
            review_pb2.ResidualLimit(
                max_residual=report.limit.max_residual,
                bound=BOUNDS[report.limit.bound],
                met=not report.refusal,
                message=report.refusal,
            )
        )
    return message


def from_combination(item: RareCombination) -> review_pb2.RareCombination:
    return review_pb2.RareCombination(
        document_id=item.document_id, entity_types=item.entity_types, documents=item.documents, number=item.number
    )


def _from_stretch(item: PassageStretch) -> review_pb2.PassageStretch:
    return review_pb2.PassageStretch(
        start=item.start, end=item.end, kind=STRETCH_KINDS[item.kind], entity_type=item.entity_type
    )


def _from_estimate(item: ResidualEstimate) -> review_pb2.ResidualEstimate:
    return review_pb2.ResidualEstimate(
        source=item.stratum.source,
        language=item.stratum.language,
        passages=item.stratum.passages,
        drawn=item.stratum.drawn,
        reviewed=item.reviewed,
        any=None if item.any is None else _from_share(item.any),
        types={kind: _from_share(share) for kind, share in item.types.items()},
        values=item.values,
    )


def _from_share(share: ResidualShare) -> review_pb2.ResidualShare:
    return review_pb2.ResidualShare(left=share.left, share=share.share, low=share.low, high=share.high)
