"""Between protobuf messages and the domain of synthetic."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from services.synthetic.domain import (
    BuildPolicy,
    BuildProgress,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    Origin,
    OriginKind,
    PairCounts,
    Row,
    Specialist,
    describe_wait,
)
from services.synthetic.views import DatasetQuery, RowFilter, RowPosition, StoredRow
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.codec import decode, encode
from tailor.datasets import HELD_OUT, TRAIN, Figures, SkippedCount
from tailor.errors import InvalidArgument, Reason
from tailor.values import DatasetKind, Labels
from tailor.wire import (
    from_datetime,
    from_span,
    to_datetime,
    to_ref,
    to_span,
)

DATASET_KINDS = {
    DatasetKind.SFT: models_pb2.DATASET_KIND_SFT,
    DatasetKind.PREFERENCE: models_pb2.DATASET_KIND_PREFERENCE,
}

ORIGIN_KINDS = {
    OriginKind.SOURCE: synthetic_pb2.ORIGIN_KIND_SOURCE,
    OriginKind.EXAMPLES: synthetic_pb2.ORIGIN_KIND_EXAMPLES,
    OriginKind.TESTS: synthetic_pb2.ORIGIN_KIND_TESTS,
}

SPLITS = {synthetic_pb2.SPLIT_TRAIN: TRAIN, synthetic_pb2.SPLIT_HELD_OUT: HELD_OUT}
SPLIT_VALUES = {name: value for value, name in SPLITS.items()}
MAX_TEXT_CHARS = 200


def to_dataset_kind(kind: int) -> DatasetKind:
    """The requested kind; sft if none is given."""
    return DatasetKind.PREFERENCE if kind == models_pb2.DATASET_KIND_PREFERENCE else DatasetKind.SFT


def to_document(message: documents_pb2.DocumentAnonymized) -> Document:
    """Raises InvalidArgument (INCOMPLETE_EVENT) without id, kind or text."""
    _require({"document_id": message.document_id, "kind": message.kind, "text": message.text.uri})
    spans = map(to_span, message.spans)
    return decode(
        Document,
        message,
        sequence=message.version.sequence,
        digest=message.version.digest,
        spans=tuple(span for span in spans if span is not None),
    )


def to_judgement(message: drafts_pb2.JudgementRecorded) -> Judgement:
    """Raises InvalidArgument (INCOMPLETE_EVENT) without id or drafts, or with a number of places other than that of ranked drafts."""
    _require({"judgement_id": message.judgement_id, "ranking": message.ranking or message.equal_drafts})
    _require({"places": not message.places or len(message.places) == len(message.ranking)})
    rubric = {field.name: value for field, value in message.rubric.ListFields()}
    return decode(Judgement, message, rubric=rubric, comment=message.comment.strip())


def to_retraction(message: drafts_pb2.JudgementRecorded) -> Judgement:
    """A judgement that was taken back: without a ranking. Raises InvalidArgument (INCOMPLETE_EVENT) without id."""
    _require({"judgement_id": message.judgement_id})
    return Judgement(message.judgement_id, message.specialist, (), {}, "")


def to_draft(message: drafts_pb2.DraftCreated) -> KeptDraft | None:
    """A draft whose text is stored; None for one without."""
    return decode(KeptDraft, message, text=to_ref(message.text)) if message.HasField("text") else None


def to_specialist(message: models_pb2.SpecialistChanged) -> Specialist:
    """Raises InvalidArgument (INCOMPLETE_EVENT) without a name."""
    _require({"name": message.name})
    return decode(
        Specialist,
        message,
        policy=decode(BuildPolicy, message.rebuild),
        guidelines=message.evaluation.guidelines,
        draw_prompts=message.judging.draw_prompts if message.judging.HasField("draw_prompts") else True,
    )


def _require(fields: dict[str, object]) -> None:
    missing = [name for name, value in fields.items() if not value]
    if missing:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, f"The event lacks {', '.join(missing)}.")


def from_skipped(skipped: Mapping[str, SkippedCount]) -> list[synthetic_pb2.Skipped]:
    """What was left out, by reason."""
    return [encode(synthetic_pb2.Skipped, count, reason=reason) for reason, count in sorted(skipped.items())]


def from_pairs(pairs: PairCounts) -> synthetic_pb2.PairCounts:
    return encode(synthetic_pb2.PairCounts, pairs)


def from_build_state(specialist: Specialist, kind: DatasetKind, progress: BuildProgress) -> synthetic_pb2.BuildState:
    noun = "documents" if kind is DatasetKind.SFT else "judgements and deliverables"
    return encode(
        synthetic_pb2.BuildState,
        progress,
        kind=DATASET_KINDS[kind],
        needed_items=specialist.policy.min_new_items,
        sentence=describe_wait(specialist.policy, progress, noun),
    )


def from_dataset(dataset: Dataset) -> models_pb2.DatasetBuilt:
    is_sft = dataset.kind is DatasetKind.SFT
    return encode(
        models_pb2.DatasetBuilt,
        dataset,
        figures=encode(models_pb2.DatasetFigures, dataset.figures) if is_sft else None,
        draft_adapter_digests=dataset.draft_adapters,
        create_time=from_datetime(dataset.created_at),
    )


def to_dataset(message: models_pb2.DatasetBuilt, **counts: Any) -> Dataset:
    """A dataset from its event, and from the counts that the event does not have."""
    return decode(
        Dataset,
        message,
        manifest=to_ref(message.manifest),
        kind=to_dataset_kind(message.kind),
        figures=decode(Figures, message.figures),
        draft_adapters=tuple(message.draft_adapter_digests),
        created_at=to_datetime(message.create_time) if message.HasField("create_time") else None,
        **counts,
    )


def from_origin(origin: Origin) -> synthetic_pb2.Origin:
    return encode(synthetic_pb2.Origin, origin, admit_time=from_datetime(origin.admitted_at))


def to_origin_kind(kind: int) -> OriginKind:
    """Raises InvalidArgument for a kind that is not set or unknown."""
    for known, number in ORIGIN_KINDS.items():
        if number == kind:
            return known
    violation = {"kind": f"must be one of {', '.join(ORIGIN_KINDS)}"}
    raise InvalidArgument(Reason.INVALID_REQUEST, "The kind of the origin is unknown.", field_violations=violation)


def from_drawn_row(row: Row, labels: Labels) -> synthetic_pb2.Row:
    """A row of a preview, with the labels that say where it comes from."""
    return from_row(row, source=labels.source, publisher=labels.publisher)


def from_row(row: Row | StoredRow, **more: Any) -> synthetic_pb2.Row:
    messages = row.chat if isinstance(row, Row) else row.messages
    return encode(
        synthetic_pb2.Row,
        row,
        spans=map(from_span, row.spans),
        messages=[synthetic_pb2.RowMessage(role=role, content=content) for role, content in messages],
        places=[synthetic_pb2.RowPlace(start=start, end=end) for start, end in row.places],
        lineage=dict(row.lineage),
        **more,
    )


def to_query(request: synthetic_pb2.ListRowsRequest) -> DatasetQuery:
    """Raises InvalidArgument if the request names neither a specialist nor a dataset."""
    if not request.specialist and not request.dataset_digest:
        raise InvalidArgument(
            Reason.NOTHING_NAMED,
            "Name a specialist or a dataset.",
            field_violations={"specialist": "must be set if `dataset_digest` is empty"},
        )
    return DatasetQuery(request.specialist, request.dataset_digest, to_dataset_kind(request.kind))


def to_filter(request: synthetic_pb2.ListRowsRequest) -> RowFilter:
    """Raises InvalidArgument if the text is too long."""
    if len(request.text) > MAX_TEXT_CHARS:
        raise InvalidArgument(
            Reason.TOO_LONG,
            f"The text to look for must have at most {MAX_TEXT_CHARS} characters.",
            field_violations={"text": f"has {len(request.text)} characters"},
        )
    return RowFilter(SPLITS.get(request.split, ""), request.task, request.document_id, request.text)


def from_position(dataset: Dataset, wanted: RowFilter, position: RowPosition | None) -> str:
    """The token of the next page; empty after the last one."""
    if position is None:
        return ""
    token = [dataset.specialist, dataset.digest, _mark(wanted), *astuple(position)]
    return base64.urlsafe_b64encode(json.dumps(token, separators=(",", ":")).encode()).decode()


def to_position(token: str, query: DatasetQuery, wanted: RowFilter) -> tuple[DatasetQuery, RowPosition]:
    """The dataset and the place that a token names; the first place without one. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
    if not token:
        return query, RowPosition()
    try:
        specialist, digest, mark, *numbers = json.loads(base64.urlsafe_b64decode(token.encode()))
        position = RowPosition(*(_count(number) for number in numbers))
    except (binascii.Error, TypeError, ValueError):
        raise _invalid_token() from None
    if mark != _mark(wanted) or query.specialist not in ("", specialist) or query.digest not in ("", digest):
        raise _invalid_token()
    return DatasetQuery(str(specialist), str(digest), query.kind), position


def _count(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("not a count")
    return number


def _mark(wanted: RowFilter) -> str:
    return hashlib.sha256(json.dumps(astuple(wanted)).encode()).hexdigest()[:16]


def _invalid_token() -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_PAGE_TOKEN,
        "The page token is invalid.",
        field_violations={"page_token": "must be the `next_page_token` of the previous page, with the same filters"},
    )


def from_stored_row(split: str, row: StoredRow) -> synthetic_pb2.Row:
    return from_row(row, split=SPLIT_VALUES[split])
