"""Files of datasets as Parquet. The settings are fixed, so that equal rows give equal bytes and the same key."""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
from pyarrow import compute

from services.synthetic.domain import PairRow, Row

MESSAGES = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
PAIR_SCHEMA = pyarrow.schema(
    [
        ("row_id", pyarrow.string()),
        ("task", pyarrow.string()),
        # The chat that was answered; it ends with the user's message.
        ("messages", MESSAGES),
        ("chosen", pyarrow.string()),
        ("rejected", pyarrow.string()),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("judgement_ids", pyarrow.list_(pyarrow.string())),
        ("made_by", pyarrow.string()),
        ("tokens", pyarrow.int32()),
    ]
)
SPAN = pyarrow.struct(
    [
        ("kind", pyarrow.string()),
        ("number", pyarrow.int32()),
        ("level", pyarrow.int32()),
        ("start", pyarrow.int32()),
        ("end", pyarrow.int32()),
    ]
)
SPANS = pyarrow.list_(SPAN)
PLACES = pyarrow.list_(pyarrow.struct([("start", pyarrow.int32()), ("end", pyarrow.int32())]))
SCHEMA = pyarrow.schema(
    [
        ("row_id", pyarrow.string()),
        ("task", pyarrow.string()),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("messages", MESSAGES),
        ("made_by", pyarrow.string()),
        # The parts of the file that hold the row's places.
        ("spans", SPANS),
        ("language", pyarrow.string()),
        ("tokens", pyarrow.int32()),
        ("grounding", pyarrow.string()),
        # The ranges of the document's text that the answers teach.
        ("places", PLACES),
        ("lineage", pyarrow.map_(pyarrow.string(), pyarrow.string())),
        # Of rows of golden documents, as JSON; else empty.
        ("key_insights", pyarrow.string()),
    ]
)


class RowTable:
    """Rows in the columns of a dataset's files, in a fixed order. Can be pickled."""

    def __init__(self, table: pyarrow.Table) -> None:
        self.table = table

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    def encode(self) -> bytes:
        """The rows as a file; equal rows give equal bytes."""
        return _encode(self.table)

    def select(self, is_kept: Sequence[bool]) -> "RowTable":
        """The kept rows."""
        return RowTable(self.table.filter(pyarrow.array(is_kept, pyarrow.bool_())))

    def answers(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """The documents of each row, and everything that its assistant says."""
        for batch in self.table.select(["document_ids", "messages"]).to_batches(max_chunksize=256):
            ids, messages = batch.columns
            yield from zip(map(tuple, ids.to_pylist()), _answers(messages), strict=True)

    def column(self, name: str) -> list[Any]:
        """The values of one column."""
        return list(self.table.column(name).to_pylist())


def make_table(rows: Sequence[Row]) -> RowTable:
    """The rows in the given order."""
    return RowTable(pyarrow.Table.from_arrays(_columns(rows), schema=SCHEMA))


def read_table(data: bytes) -> RowTable:
    """The rows of a file."""
    return RowTable(_decode(data).cast(SCHEMA))


def join_tables(tables: Sequence[RowTable]) -> RowTable:
    """All rows in the given order."""
    return RowTable(pyarrow.concat_tables([table.table for table in tables]) if tables else SCHEMA.empty_table())


def write_pairs(rows: Sequence[PairRow]) -> bytes:
    """Preference rows as a file; equal rows give equal bytes."""
    return _encode(pyarrow.Table.from_pylist([_pair_record(row) for row in rows], schema=PAIR_SCHEMA))


def write_ids(columns: Mapping[str, Sequence[str]]) -> bytes:
    """Columns of ids as a file; equal ids give equal bytes."""
    return _encode(pyarrow.table({name: pyarrow.array(ids, pyarrow.string()) for name, ids in columns.items()}))


def read_column(data: bytes, column: str) -> list[str]:
    """A column of texts of a file."""
    table = pyarrow.parquet.read_table(io.BytesIO(data), columns=[column], use_threads=False)
    return list(table.column(column).to_pylist())


def write_numbers(columns: Mapping[str, bytes]) -> bytes:
    """Columns of unsigned numbers of 64 bits, little-endian, as a file. Sorted and small numbers take little room."""
    arrays = {name: _number_array(values) for name, values in columns.items()}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.table(arrays),
        buffer,
        version="2.6",
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        column_encoding=dict.fromkeys(columns, "DELTA_BINARY_PACKED"),
    )
    return buffer.getvalue()


def read_numbers(data: bytes) -> dict[str, bytes]:
    """The columns of a file of numbers."""
    table = _decode(data)
    return {name: table.column(name).to_numpy().tobytes() for name in table.column_names}


def _number_array(values: bytes) -> pyarrow.Array:
    return pyarrow.Array.from_buffers(pyarrow.uint64(), len(values) // 8, [None, pyarrow.py_buffer(values)])


def _decode(data: bytes) -> pyarrow.Table:
    return pyarrow.parquet.read_table(io.BytesIO(data), use_threads=False)


def _encode(table: pyarrow.Table) -> bytes:
    buffer = io.BytesIO()
    # Without chunks, so that the bytes do not depend on how the table was put together.
    pyarrow.parquet.write_table(
        table.combine_chunks(),
        buffer,
        version="2.6",
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        row_group_size=4096,
    )
    return buffer.getvalue()


def _columns(rows: Sequence[Row]) -> list[pyarrow.Array]:
    """The columns of SCHEMA. Built one by one: a record for each row would take several times as long."""
    columns = {
        "row_id": [row.row_id for row in rows],
        "task": [row.task for row in rows],
        "document_ids": [row.document_ids for row in rows],
        "messages": _lists([row.chat for row in rows], MESSAGES, itemgetter(0), itemgetter(1)),
        "made_by": [row.made_by for row in rows],
        "spans": _lists([row.spans for row in rows], SPANS, *(attrgetter(field.name) for field in SPAN)),
        "language": [row.language for row in rows],
        "tokens": [row.tokens for row in rows],
        "grounding": [row.grounding.value for row in rows],
        "places": _lists([row.places for row in rows], PLACES, itemgetter(0), itemgetter(1)),
        "lineage": [row.lineage for row in rows],
        "key_insights": [row.key_insights for row in rows],
    }
    return [
        column if isinstance(column, pyarrow.Array) else pyarrow.array(column, SCHEMA.field(name).type)
        for name, column in columns.items()
    ]


def _lists(
    lists: Sequence[Sequence[Any]], kind: pyarrow.ListType, *readers: Callable[[Any], object]
) -> pyarrow.ListArray:
    """Lists of structs, from a function for each field."""
    fields, items = list(kind.value_type), list(itertools.chain.from_iterable(lists))
    parts = [pyarrow.array(map(read, items), field.type) for read, field in zip(readers, fields, strict=True)]
    ends = itertools.accumulate(map(len, lists), initial=0)
    values = pyarrow.StructArray.from_arrays(parts, fields=fields)
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends, pyarrow.int32()), values, type=kind)


def _answers(messages: pyarrow.ListArray) -> Iterator[str]:
    """What the assistant says in each chat. Only its messages become Python objects."""
    said = messages.flatten()
    is_answer = compute.equal(said.field("role"), "assistant")
    contents = iter(said.field("content").filter(is_answer).to_pylist())
    chats = numpy.repeat(numpy.arange(len(messages)), messages.value_lengths().to_numpy())
    counts = numpy.bincount(chats[is_answer.to_numpy(zero_copy_only=False)], minlength=len(messages))
    return ("\n".join(itertools.islice(contents, count)) for count in counts.tolist())


def _pair_record(row: PairRow) -> dict[str, object]:
    return {
        "row_id": row.row_id,
        "task": row.task,
        "messages": [{"role": role, "content": content} for role, content in row.messages],
        "chosen": row.chosen,
        "rejected": row.rejected,
        "document_ids": list(row.document_ids),
        "judgement_ids": list(row.judgement_ids),
        "made_by": row.made_by,
        "tokens": row.tokens,
    }
