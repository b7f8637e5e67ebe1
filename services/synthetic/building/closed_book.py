"""Which documents have closed-book questions, and the questions of a segment."""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from services.synthetic.parquet import join_tables, read_closed_book_table
from tailor.datasets import ClosedBookFiles

# Draws lie below this number.
ALL_DRAWS = 1 << 32


def closed_book_draw(document_id: str) -> int:
    """A fixed number of 32 bits; PostgreSQL draws the same one."""
    return int(hashlib.md5(f"closed_book{document_id}".encode(), usedforsecurity=False).hexdigest()[:8], 16)


def find_closed_book_limit(next_draw: int | None) -> int:
    """Documents with a draw below this number have questions. `next_draw` is that of the first document beyond the specialist's limit.

    It is a power of two, so that it changes only when the number of documents doubles, and with it the files of all segments.
    """
    if next_draw is None:
        return ALL_DRAWS
    return 1 << (next_draw.bit_length() - 1) if next_draw else 0


def write_closed_book(
    data: Sequence[bytes], document_ids: Collection[str], below: int
) -> tuple[bytes, ClosedBookFiles]:
    """The questions about these documents, which are those with rows, as a file, and their counts. Without questions, the file is empty.

    Deterministic.
    """
    if not below:
        return b"", ClosedBookFiles()
    chosen = [document_id for document_id in document_ids if closed_book_draw(document_id) < below]
    counts = ClosedBookFiles(beyond_limit=len(document_ids) - len(chosen), without_questions=len(chosen))
    if not data:
        return b"", counts
    known = set(document_ids)
    table = join_tables([read_closed_book_table(part) for part in data])
    table = table.select([document_id in known for document_id in table.column("document_id")])
    asked, kinds = len(set(table.column("document_id"))), dict(Counter(table.column("kind")))
    counts = replace(counts, documents=asked, rows=table.rows, without_questions=len(chosen) - asked, kinds=kinds)
    return table.encode() if table.rows else b"", counts


def add_closed_book(total: ClosedBookFiles, more: ClosedBookFiles) -> ClosedBookFiles:
    """Both as one."""
    return ClosedBookFiles(
        total.documents + more.documents,
        total.rows + more.rows,
        total.beyond_limit + more.beyond_limit,
        total.without_questions + more.without_questions,
        dict(Counter(total.kinds) + Counter(more.kinds)),
        total.files + more.files,
    )
