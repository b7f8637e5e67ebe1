"""Held-out rows of a dataset, read from its manifest and Parquet file."""

import io
import json
from typing import Any

import pyarrow
import pyarrow.parquet

from services.evaluation.domain import HeldOutRow
from services.evaluation.ports import HeldOutRows
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredHeldOutRows(HeldOutRows):
    """Reads the held-out split (Parquet) that a manifest names."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def held_out(self, manifest: Ref) -> list[HeldOutRow]:
        try:
            split = json.loads(self._store.get(manifest))["splits"]["held_out"]
            ref = Ref(f"s3://{manifest.bucket}/{split['key']}", split["sha256"], split["size_bytes"])
            table = pyarrow.parquet.read_table(io.BytesIO(self._store.get(ref)))
            rows = [_row(record) for record in table.to_pylist()]
        except (ValueError, LookupError, TypeError, pyarrow.ArrowException):
            raise FailedPrecondition(
                Reason.INVALID_DATASET, "The dataset does not match its contract.", uri=manifest.uri
            ) from None
        return sorted(rows, key=lambda row: row.row_id)


def _row(record: dict[str, Any]) -> HeldOutRow:
    """A row of either kind. The reference is the last message (sft) or the chosen answer (preference)."""
    messages = [(message["role"], message["content"]) for message in record["messages"]]
    reference = record["chosen"] if "chosen" in record else messages.pop()[1]
    return HeldOutRow(record["row_id"], record["origin"], tuple(record["document_ids"]), tuple(messages), reference)
