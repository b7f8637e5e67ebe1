"""Between protobuf messages and the rows that people look at, and page tokens."""

import base64
import binascii
import hashlib
import json
from dataclasses import astuple

from services.synthetic import wire
from services.synthetic.browsing import DatasetQuery
from services.synthetic.views import RowFilter, RowPosition, StoredDataset, StoredRow
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.datasets import HELD_OUT, TRAIN, DatasetManifest
from tailor.errors import InvalidArgument, Reason
from tailor.wire import from_span

SPLITS = {synthetic_pb2.SPLIT_TRAIN: TRAIN, synthetic_pb2.SPLIT_HELD_OUT: HELD_OUT}
SPLIT_VALUES = {name: value for value, name in SPLITS.items()}
MAX_TEXT_CHARS = 200


def to_query(request: synthetic_pb2.ListRowsRequest | synthetic_pb2.DescribeDatasetRequest) -> DatasetQuery:
    """Raises InvalidArgument if the request names neither a specialist nor a dataset."""
    if not request.specialist and not request.dataset_digest:
        raise InvalidArgument(
            Reason.NOTHING_NAMED,
            "Name a specialist or a dataset.",
            field_violations={"specialist": "must be set if `dataset_digest` is empty"},
        )
    return DatasetQuery(request.specialist, request.dataset_digest, wire.to_dataset_kind(request.kind))


def to_filter(request: synthetic_pb2.ListRowsRequest) -> RowFilter:
    """Raises InvalidArgument if the text is too long."""
    if len(request.text) > MAX_TEXT_CHARS:
        raise InvalidArgument(
            Reason.TOO_LONG,
            f"The text to look for must have at most {MAX_TEXT_CHARS} characters.",
            field_violations={"text": f"has {len(request.text)} characters"},
        )
    return RowFilter(SPLITS.get(request.split, ""), request.task, request.document_id, request.text)


def from_position(dataset: StoredDataset, wanted: RowFilter, position: RowPosition | None) -> str:
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
    return synthetic_pb2.Row(
        row_id=row.row_id,
        task=row.task,
        document_ids=row.document_ids,
        spans=map(from_span, row.spans),
        messages=[synthetic_pb2.RowMessage(role=role, content=content) for role, content in row.messages],
        rejected=row.rejected,
        split=SPLIT_VALUES[split],
        language=row.language,
        tokens=row.tokens,
        grounding=row.grounding,
        places=[synthetic_pb2.RowPlace(start=start, end=end) for start, end in row.places],
        made_by=row.made_by,
        lineage=row.lineage,
        judgement_ids=row.judgement_ids,
    )


def from_manifest(dataset: StoredDataset, manifest: DatasetManifest) -> synthetic_pb2.DescribeDatasetResponse:
    figures, train, held_out = manifest.figures, manifest.split(TRAIN), manifest.split(HELD_OUT)
    left_out = sorted(manifest.left_out.items(), key=lambda item: (-item[1].characters, -item[1].rows, item[0]))
    return synthetic_pb2.DescribeDatasetResponse(
        dataset_digest=dataset.digest,
        specialist=dataset.specialist,
        documents=manifest.sources.count,
        judgements=manifest.judgements.count,
        train_rows=train.rows,
        train_tokens=train.tokens,
        held_out_rows=held_out.rows,
        held_out_tokens=held_out.tokens,
        coverage=figures.coverage,
        grounded=figures.grounded,
        overlap=figures.overlap,
        characters=figures.characters,
        left_out=[
            synthetic_pb2.LeftOutCount(
                reason=reason, documents=count.documents, rows=count.rows, characters=count.characters
            )
            for reason, count in left_out
        ],
    )
