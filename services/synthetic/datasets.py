"""What every kind of dataset is made with: texts from the corpus, splits and manifests in the datasets bucket."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from services.synthetic.domain import Dataset, Document, Split, Text
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)


class HasOrigin(Protocol):
    """A row of any kind."""

    @property
    def origin(self) -> str:
        """How it was made."""
        ...


def read_texts(store: ObjectStore, documents: Sequence[Document]) -> dict[str, Text]:
    """The texts by document id. One that is no longer there was erased or superseded, and is left out."""
    texts = {}
    for document in documents:
        try:
            value = json.loads(store.get(document.text))
            texts[document.document_id] = Text(value["prompt"], value["text"])
        except NotFound:
            log.warning("text is gone", document_id=document.document_id)
        except (ValueError, KeyError, TypeError):
            raise bad_text(document.text) from None
    return texts


def bad_text(ref: Ref) -> FailedPrecondition:
    """An object is not as its contract says."""
    return FailedPrecondition(Reason.INVALID_TEXT_OBJECT, "A stored text is not as its contract says.", uri=ref.uri)


def held_manifest(store: ObjectStore, dataset: Dataset | None) -> dict[str, object]:
    """The manifest of what was built last; empty where there is none."""
    if dataset is None:
        return {}
    try:
        return dict(json.loads(store.get(dataset.manifest)))
    except NotFound:
        return {}


def write_manifest(
    store: ObjectStore, held: Dataset | None, same: Mapping[str, object], rest: Mapping[str, object]
) -> tuple[str, Ref]:
    """Store a manifest, which holds no time; its digest and reference. Where what was built last has the `same` parts, it stays, though the
    rest of it differs: the same rows are the same dataset."""
    before = held_manifest(store, held)
    if held is not None and all(before.get(name) == part for name, part in same.items()):
        return held.digest, held.manifest
    data = json.dumps({**same, **rest}, sort_keys=True, indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    return digest, store.put(DATASETS, f"{digest}/manifest.json", data, "application/json")


def entry(split: Split) -> dict[str, object]:
    """A split in a manifest."""
    return {"key": split.ref.key, "sha256": split.ref.sha256, "size_bytes": split.ref.size_bytes, "rows": split.rows}


def origins(rows: Iterable[HasOrigin]) -> dict[str, int]:
    """Rows counted by how they were made."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.origin] = counts.get(row.origin, 0) + 1
    return counts
