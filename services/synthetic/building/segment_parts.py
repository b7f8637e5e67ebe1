"""The rows of a segment are made in parts, a few documents each. Those of a segment that still grows are stored, so that documents which
arrive later do not make the rows of the others again.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from services.synthetic.adapters.corpus import SqlCorpus
from services.synthetic.building.segments import MadeRows, make_segment, read_members
from services.synthetic.corpus import UNREADABLE, Member, SegmentKey, StoredPart
from services.synthetic.domain import fingerprint
from services.synthetic.ports import Workers
from tailor.codec import dump, load
from tailor.datasets import SkippedCount
from tailor.errors import CorruptObject, NotFound
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

# Documents of a part. A new document makes the rows of at most this number of others again.
PART_DOCUMENTS = 16
HEADER = "header"


def split_members(members: Sequence[Member]) -> list[Sequence[Member]]:
    """The documents of each part. Documents that are added at the end change only the last one."""
    return [members[start : start + PART_DOCUMENTS] for start in range(0, max(1, len(members)), PART_DOCUMENTS)]


def join_parts(parts: Sequence[MadeRows]) -> MadeRows:
    """The rows of all parts, as if they had been made at once."""
    rows = itertools.accumulate((len(part.index) for part in parts), initial=0)
    documents = itertools.accumulate((len(part.ids) for part in parts), initial=0)
    index, places, skipped = [], [], dict[str, SkippedCount]()
    for part, row, document in zip(parts, rows, documents, strict=False):
        index.append(part.index.copy())
        index[-1]["document"] += document
        places.append(part.places + numpy.array([row, document, 0, 0]))
        for reason, count in part.skipped.items():
            skipped[reason] = skipped.get(reason, SkippedCount()) + count
    return MadeRows(
        tables=tuple(itertools.chain.from_iterable(part.tables for part in parts)),
        ids=tuple(itertools.chain.from_iterable(part.ids for part in parts)),
        index=numpy.concatenate(index),
        places=numpy.concatenate(places),
        skipped=skipped,
    )


def encode_rows(made: MadeRows) -> bytes:
    """The rows as one file. Equal rows give equal bytes."""
    header = {"ids": made.ids, "skipped": dump(made.skipped), "tables": len(made.tables)}
    arrays = {"index": made.index, "places": made.places, HEADER: _bytes(json.dumps(header).encode())}
    arrays |= {f"table{number}": _bytes(data) for number, data in enumerate(made.tables)}
    buffer = io.BytesIO()
    numpy.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def decode_rows(data: bytes) -> MadeRows:
    """The rows of `encode_rows`."""
    with numpy.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(arrays[HEADER].tobytes())
        tables = tuple(arrays[f"table{number}"].tobytes() for number in range(header["tables"]))
        return load(MadeRows, header, index=arrays["index"], places=arrays["places"], tables=tables)


def _bytes(data: bytes) -> NDArray[numpy.uint8]:
    return numpy.frombuffer(data, numpy.uint8)


def part_of(inputs: str, data: bytes) -> StoredPart:
    """The file that the rows of a part will be: its name is its digest."""
    digest = hashlib.sha256(data).hexdigest()
    return StoredPart(inputs, Ref(f"s3://{DATASETS}/files/{digest}.npz", digest, len(data)))


@dataclass(frozen=True)
class SegmentRows:
    """All rows of a segment, with its documents, and the parts to store by their inputs."""

    key: SegmentKey
    members: Sequence[Member]
    made: MadeRows
    parts: Mapping[str, bytes]


@dataclass(frozen=True)
class SegmentMaker:
    """Makes the rows of segments. `inputs` is a digest of what all parts depend on."""

    corpus: SqlCorpus
    store: ObjectStore
    workers: Workers
    inputs: str

    def start(self, key: SegmentKey, *, grows: bool = False) -> Callable[[], SegmentRows]:
        """Start to make the rows of a segment; the result waits for them. Blocks until the texts are read.

        The parts of a segment that grows are to be stored.
        """
        members = self.corpus.members(key.number)
        result = self.corpus.segment_result(key.number)
        stored = {part.inputs: part for part in result.parts} if result else {}
        parts = [self._start_part(part, stored) for part in split_members(members)]

        def join() -> SegmentRows:
            made = [(inputs, rows()) for inputs, rows in parts]
            files = {inputs: encode_rows(rows) for inputs, rows in made} if grows else {}
            return SegmentRows(key, members, join_parts([rows for _, rows in made]), files)

        return join

    def _start_part(
        self, members: Sequence[Member], stored: Mapping[str, StoredPart]
    ) -> tuple[str, Callable[[], MadeRows]]:
        """A digest of what the rows of a part depend on, and the rows."""
        inputs = fingerprint(self.inputs, [(member.document.document_id, member.fingerprint) for member in members])
        known = self._read_part(stored[inputs]) if inputs in stored else None
        if known is not None and UNREADABLE not in known.skipped:
            return inputs, lambda: known
        texts = read_members(self.store, members)
        return inputs, self.workers.submit(make_segment, texts)

    def _read_part(self, part: StoredPart) -> MadeRows | None:
        """The stored rows; None if an erasure deleted them, or if their bytes are damaged."""
        try:
            return decode_rows(self.store.get(part.ref))
        except (NotFound, CorruptObject):
            return None
