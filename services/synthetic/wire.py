"""Between wire messages and the domain."""

from dataclasses import asdict
from datetime import UTC

from services.synthetic.domain import (
    Dataset,
    DatasetKind,
    Document,
    Filters,
    Judgement,
    KeptDraft,
    Kind,
    Labels,
    LeftOut,
    PairCounts,
    Policy,
    Row,
    Selection,
    Specialist,
)
from services.synthetic.spans import Span
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import documents_pb2, drafts_pb2, models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref

KINDS = {
    common_pb2.KIND_DOCUMENT: Kind.DOCUMENT,
    common_pb2.KIND_DELIVERABLE: Kind.DELIVERABLE,
    common_pb2.KIND_EXAMPLE: Kind.EXAMPLE,
}


SPAN_KINDS = {
    common_pb2.SPAN_KIND_PAGE: "page",
    common_pb2.SPAN_KIND_SECTION: "section",
    common_pb2.SPAN_KIND_SHEET: "sheet",
    common_pb2.SPAN_KIND_SLIDE: "slide",
    common_pb2.SPAN_KIND_ATTACHMENT: "attachment",
}


DATASET_KINDS = {
    DatasetKind.SFT: models_pb2.DATASET_KIND_SFT,
    DatasetKind.PREFERENCE: models_pb2.DATASET_KIND_PREFERENCE,
}


def to_dataset_kind(kind: int) -> DatasetKind:
    """The kind that is asked for; sft where none is."""
    return DatasetKind.PREFERENCE if kind == models_pb2.DATASET_KIND_PREFERENCE else DatasetKind.SFT


def to_document(message: documents_pb2.DocumentAnonymized) -> Document:
    """A document behind the barrier; InvalidArgument where the event lacks its id, kind or text."""
    if not message.document_id or message.kind not in KINDS or not message.text.uri:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "A document needs its id, kind and text.")
    return Document(
        document_id=message.document_id,
        sequence=message.version.sequence,
        digest=message.version.digest,
        kind=KINDS[message.kind],
        labels=Labels(message.labels.source, message.labels.department, message.labels.confidentiality),
        text=Ref(message.text.uri, message.text.sha256, message.text.size_bytes),
        draft_id=message.draft_id,
        language=message.language,
        spans=tuple(to_span(span) for span in message.spans if span.kind in SPAN_KINDS),
    )


def to_judgement(message: drafts_pb2.JudgementRecorded) -> Judgement:
    """A judgement; InvalidArgument without id or ranking."""
    if not message.judgement_id or not message.ranking:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "A judgement needs its id and drafts.")
    rubric = {field.name: value for field, value in message.rubric.ListFields()}
    return Judgement(message.judgement_id, message.specialist, tuple(message.ranking), rubric, message.comment)


def to_draft(message: drafts_pb2.DraftCreated) -> KeptDraft | None:
    """A draft whose text is kept; None for one without."""
    if not message.HasField("text"):
        return None
    text = Ref(message.text.uri, message.text.sha256, message.text.size_bytes)
    return KeptDraft(message.draft_id, message.specialist, message.prompt_digest, message.adapter_digest, text)


def to_specialist(message: models_pb2.SpecialistChanged) -> Specialist:
    """A specialist; InvalidArgument without a name."""
    if not message.name:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "A specialist needs its name.")
    selection, rebuild = message.selection, message.rebuild
    return Specialist(
        name=message.name,
        revision=message.revision,
        base=message.base,
        recipe=message.recipe,
        selection=Selection(
            frozenset(selection.sources), frozenset(selection.departments), frozenset(selection.confidentialities)
        ),
        policy=Policy(rebuild.min_new_items, rebuild.quiet_seconds, rebuild.min_interval_seconds),
        system_prompt=message.system_prompt,
        use_teacher=message.use_teacher,
        filters=to_filters(message.filters),
        preference_recipe=message.preference_recipe,
        keep_drafts=message.keep_drafts,
    )


def to_filters(message: models_pb2.Filters) -> Filters:
    """A specialist's filters."""
    return Filters(
        languages=frozenset(message.languages),
        min_chars=message.min_chars,
        max_chars=message.max_chars,
        boilerplate_documents=message.boilerplate_documents,
        max_source_documents=message.max_source_documents,
        max_source_percent=message.max_source_percent,
        max_pairs_per_judgement=message.max_pairs_per_judgement,
    )


def from_left_out(left_out: LeftOut) -> synthetic_pb2.LeftOut:
    """What the filters left out, for the wire."""
    return synthetic_pb2.LeftOut(**asdict(left_out))


def from_pairs(pairs: PairCounts) -> synthetic_pb2.PairCounts:
    """What became of judgements and deliverables, for the wire."""
    return synthetic_pb2.PairCounts(**asdict(pairs))


def from_dataset(dataset: Dataset) -> models_pb2.DatasetBuilt:
    """A dataset for the wire."""
    message = models_pb2.DatasetBuilt(
        digest=dataset.digest,
        specialist=dataset.specialist,
        kind=DATASET_KINDS[dataset.kind],
        manifest=common_pb2.ObjectRef(
            uri=dataset.manifest.uri, sha256=dataset.manifest.sha256, size_bytes=dataset.manifest.size_bytes
        ),
        train_rows=dataset.train_rows,
        held_out_rows=dataset.held_out_rows,
        base=dataset.base,
        recipe=dataset.recipe,
        document_ids=dataset.document_ids,
        judgement_ids=dataset.judgement_ids,
        ranked_adapter_digest=dataset.ranked_adapter,
    )
    if dataset.created_at is not None:
        message.create_time.FromDatetime(dataset.created_at)
    return message


def to_dataset(message: models_pb2.DatasetBuilt, near_duplicates: int, left_out: LeftOut, pairs: PairCounts) -> Dataset:
    """A dataset as it was stated."""
    return Dataset(
        digest=message.digest,
        specialist=message.specialist,
        base=message.base,
        recipe=message.recipe,
        manifest=Ref(message.manifest.uri, message.manifest.sha256, message.manifest.size_bytes),
        train_rows=message.train_rows,
        held_out_rows=message.held_out_rows,
        document_ids=tuple(message.document_ids),
        near_duplicates=near_duplicates,
        left_out=left_out,
        kind=to_dataset_kind(message.kind),
        judgement_ids=tuple(message.judgement_ids),
        ranked_adapter=message.ranked_adapter_digest,
        pairs=pairs,
        created_at=message.create_time.ToDatetime(UTC) if message.HasField("create_time") else None,
    )


def from_row(row: Row) -> synthetic_pb2.Row:
    """A row for the wire."""
    return synthetic_pb2.Row(
        row_id=row.row_id,
        origin=row.origin,
        document_ids=row.document_ids,
        prompt=row.prompt,
        completion=row.completion,
        spans=map(from_span, row.spans),
    )


def to_span(message: common_pb2.Span) -> Span:
    """A span of a kind that is known."""
    return Span(SPAN_KINDS[message.kind], message.number, message.level, message.start, message.end)


def from_span(span: Span) -> common_pb2.Span:
    """A span for the wire."""
    kind = common_pb2.SpanKind.Value(f"SPAN_KIND_{span.kind.upper()}")
    return common_pb2.Span(kind=kind, number=span.number, level=span.level, start=span.start, end=span.end)
