"""Anonymised texts of drafts and documents in the object store."""

import json

from services.registry.ports import ComparedTexts
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredComparedTexts(ComparedTexts):
    """Reads drafts from the bucket `drafts` and documents from the bucket `corpus`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_answer(self, draft: Ref) -> str | None:
        return self._read(draft, "answer")

    def read_document(self, document: Ref) -> str | None:
        return self._read(document, "text")

    def _read(self, ref: Ref, field: str) -> str | None:
        try:
            return str(json.loads(self._store.get(ref))[field])
        except NotFound:
            return None
        except (ValueError, KeyError, TypeError):
            raise FailedPrecondition(
                Reason.INVALID_TEXT_OBJECT, "A stored text does not follow its contract.", uri=ref.uri
            ) from None
