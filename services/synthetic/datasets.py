"""Shared by all kinds of datasets: texts from the corpus, and splits and manifests in the datasets bucket."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from services.synthetic.domain import Dataset, Document, PairRow, Row, Split, Text
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)


def read_texts(store: ObjectStore, documents: Sequence[Document]) -> dict[str, Text]:
    """The texts by document id, without those that no longer exist because they were erased or superseded."""
    texts = {}
    for document in documents:
        try:
            value = json.loads(store.get(document.text))
            texts[document.document_id] = Text(value["prompt"], value["text"])
        except NotFound:
            log.warning("text is gone", document_id=document.document_id)
        except (ValueError, KeyError, TypeError):
            raise invalid_text(document.text) from None
    return texts


def invalid_text(ref: Ref) -> FailedPrecondition:
    return FailedPrecondition(Reason.INVALID_TEXT_OBJECT, "A stored text does not follow its contract.", uri=ref.uri)


def _last_manifest(store: ObjectStore, dataset: Dataset | None) -> dict[str, object]:
    """The manifest of the last build; empty if there is none."""
    if dataset is None:
        return {}
    try:
        return dict(json.loads(store.get(dataset.manifest)))
    except NotFound:
        return {}


def write_manifest(
    store: ObjectStore, last: Dataset | None, same: Mapping[str, object], rest: Mapping[str, object]
) -> tuple[str, Ref]:
    """Store a manifest, and return its digest and reference. It contains no times.

    If the last build has the `same` parts, its manifest is returned instead, even if the `rest` differs: equal rows are the same dataset.
    """
    before = _last_manifest(store, last)
    if last is not None and all(before.get(name) == part for name, part in same.items()):
        return last.digest, last.manifest
    data = json.dumps({**same, **rest}, sort_keys=True, indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    return digest, store.put(DATASETS, f"{digest}/manifest.json", data, "application/json")


def manifest_entry(split: Split) -> dict[str, object]:
    """A split as an entry of a manifest."""
    return {"key": split.ref.key, "sha256": split.ref.sha256, "size_bytes": split.ref.size_bytes, "rows": split.rows}


def count_origins(rows: Iterable[Row | PairRow]) -> dict[str, int]:
    """The number of rows by task."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.origin] = counts.get(row.origin, 0) + 1
    return counts
