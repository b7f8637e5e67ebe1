"""Rows by the rules of `rows`."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.synthetic.domain import Conversation, Document, DocumentRows, Range, RowNeeds, Specialist, Text
from services.synthetic.ports import RowMaker, TokenCounter
from services.synthetic.rows.document_rows import make_deliverable_rows, make_rows


@dataclass(frozen=True)
class StructureRows(RowMaker):
    """Rows from the structure of documents, and of what people wrote."""

    def make(
        self,
        document: Document,
        text: Text,
        specialist: Specialist,
        counter: TokenCounter,
        skip: Sequence[Range],
        *,
        needs: RowNeeds,
    ) -> DocumentRows:
        return make_rows(document, text, specialist, counter, skip, needs=needs)

    def make_deliverable(
        self, document: Document, text: Text, draft: Conversation, specialist: Specialist, counter: TokenCounter
    ) -> DocumentRows:
        return make_deliverable_rows(document, text, draft, specialist, counter)
