"""Shared by all kinds of datasets: texts from the corpus, and files and manifests in the datasets bucket."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from services.synthetic.domain import Conversation, Dataset, Document, KeptDraft, Text
from tailor.datasets import DatasetFile
from tailor.errors import CorruptObject, FailedPrecondition, NotFound, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

T = TypeVar("T")

PARQUET = "application/vnd.apache.parquet"


def read_text(store: ObjectStore, document: Document) -> Text | None:
    """The document's text; None if it no longer exists because it was erased or superseded, or if its bytes are damaged."""

    def make(value: Any) -> Text:
        insights = value.get("key_insights")
        return Text(value["prompt"], value["text"], json.dumps(insights, ensure_ascii=False) if insights else "")

    return _read(store, document.text, make, "document left out", document_id=document.document_id)


def read_texts(store: ObjectStore, documents: Sequence[Document]) -> dict[str, Text]:
    """The texts by document id, without those that cannot be read."""
    pairs = ((document.document_id, read_text(store, document)) for document in documents)
    return {key: text for key, text in pairs if text is not None}


def read_draft(store: ObjectStore, draft: KeptDraft) -> Conversation | None:
    """A draft with its text; None if the text no longer exists, or if its bytes are damaged."""

    def make(value: Any) -> Conversation:
        messages = tuple((message["role"], message["content"]) for message in value["messages"])
        return Conversation(
            draft.draft_id, draft.prompt_digest, messages, value["answer"], draft.edit_of, draft.drawn_from
        )

    return _read(store, draft.text, make, "draft left out", draft_id=draft.draft_id)


def _read(store: ObjectStore, ref: Ref, make: Callable[[Any], T], warning: str, **ids: str) -> T | None:
    """What is made of a stored JSON; None with a warning if it cannot be read. Raises FailedPrecondition (INVALID_TEXT_OBJECT)."""
    try:
        return make(json.loads(store.get(ref)))
    except (NotFound, CorruptObject) as error:
        log.warning(warning, uri=ref.uri, reason=error.reason.value, **ids)
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FailedPrecondition(
            Reason.INVALID_TEXT_OBJECT, "A stored text does not follow its contract.", uri=ref.uri
        ) from None


def file_of(data: bytes, rows: int) -> DatasetFile:
    """The file that these bytes will be: its name is its digest."""
    digest = hashlib.sha256(data).hexdigest()
    return DatasetFile(Ref(f"s3://{DATASETS}/files/{digest}.parquet", digest, len(data)), rows)


def store_file(store: ObjectStore, data: bytes, rows: int) -> DatasetFile:
    """Store a Parquet file."""
    file = file_of(data, rows)
    store.put(file.ref.bucket, file.ref.key, data, PARQUET)
    return file


def _last_manifest(store: ObjectStore, dataset: Dataset | None) -> dict[str, object]:
    """The manifest of the last build; empty if there is none."""
    if dataset is None:
        return {}
    try:
        return dict(json.loads(store.get(dataset.manifest)))
    except (NotFound, CorruptObject):
        return {}


def write_manifest(
    store: ObjectStore, last: Dataset | None, content: Mapping[str, object], same: Sequence[str]
) -> tuple[str, Ref]:
    """Store a manifest, and return its digest and reference. It contains no times.

    If the last build has the `same` parts, its manifest is returned instead, even if the rest differs: equal rows are the same dataset.
    """
    content = json.loads(json.dumps(content))
    before = _last_manifest(store, last)
    if last is not None and all(before.get(name) == content.get(name) for name in same):
        return last.digest, last.manifest
    data = json.dumps(content, sort_keys=True, indent=1).encode()
    digest = hashlib.sha256(data).hexdigest()
    return digest, store.put(DATASETS, f"{digest}/manifest.json", data, "application/json")
