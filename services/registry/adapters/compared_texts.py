"""Anonymised texts of drafts and documents in the object store."""

import json

from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredComparedTexts:
    """Reads anonymised drafts from the bucket `drafts` and documents from the bucket `corpus`.

    Methods block. They raise Unavailable while the store does not answer, and FailedPrecondition for a damaged text.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_answer(self, draft: Ref) -> str | None:
        """The answer of a draft; None once it has expired."""
        return self._read(draft, "answer")

    def read_document(self, document: Ref) -> str | None:
        """The text of a document; None once it is erased or superseded."""
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
