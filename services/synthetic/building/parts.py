"""The rows of a segment are made in parts, a few documents each. Those of a segment that still grows are stored, so that documents which
arrive later do not make the rows of the others again.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy
from numpy.typing import NDArray

from services.synthetic.building.ports import SegmentStore, Workers
from services.synthetic.building.reading import MemberReader
from services.synthetic.building.segments import RawSegment, make_segment
from services.synthetic.corpus import UNREADABLE, Member, SegmentKey, StoredPart
from services.synthetic.domain import fingerprint
from tailor.datasets import SkippedCount
from tailor.errors import CorruptObject, NotFound
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

# Documents of a part. A new document makes the rows of at most this number of others again.
PART_DOCUMENTS = 16
ARRAYS = ("answers", "draws", "tokens", "is_human", "documents", "places", "is_extra")
FILES = ("tables", "closed_book")
HEADER = "header"


def split_members(members: Sequence[Member]) -> list[Sequence[Member]]:
    """The documents of each part. Documents that are added at the end change only the last one."""
    return [members[start : start + PART_DOCUMENTS] for start in range(0, max(1, len(members)), PART_DOCUMENTS)]


def join_parts(parts: Sequence[RawSegment]) -> RawSegment:
    """The rows of all parts, as if they had been made at once."""
    rows = list(itertools.accumulate((part.rows for part in parts), initial=0))
    documents = list(itertools.accumulate((len(part.ids) for part in parts), initial=0))
    arrays = {name: numpy.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    starts = list(zip(parts, rows, documents, strict=False))
    arrays["documents"] = numpy.concatenate([part.documents + document for part, _, document in starts])
    arrays["places"] = numpy.concatenate(
        [part.places + numpy.array([row, document, 0, 0]) for part, row, document in starts]
    )
    skipped: dict[str, SkippedCount] = {}
    for part in parts:
        for reason, count in part.skipped.items():
            skipped[reason] = skipped.get(reason, SkippedCount()) + count
    return RawSegment(
        ids=tuple(itertools.chain.from_iterable(part.ids for part in parts)),
        skipped=skipped,
        tables=tuple(itertools.chain.from_iterable(part.tables for part in parts)),
        closed_book=tuple(itertools.chain.from_iterable(part.closed_book for part in parts)),
        **arrays,
    )


def write_raw(raw: RawSegment) -> bytes:
    """The rows as one file. Equal rows give equal bytes."""
    header = {
        "ids": raw.ids,
        "skipped": {reason: asdict(count) for reason, count in raw.skipped.items()},
        **{name: len(getattr(raw, name)) for name in FILES},
    }
    arrays = {name: getattr(raw, name) for name in ARRAYS}
    arrays[HEADER] = _bytes(json.dumps(header).encode())
    for name in FILES:
        arrays |= {f"{name}{number}": _bytes(data) for number, data in enumerate(getattr(raw, name))}
    buffer = io.BytesIO()
    numpy.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def part_of(inputs: str, data: bytes) -> StoredPart:
    """The file that the rows of a part will be: its name is its digest."""
    digest = hashlib.sha256(data).hexdigest()
    return StoredPart(inputs, Ref(f"s3://{DATASETS}/files/{digest}.npz", digest, len(data)))


def read_raw(data: bytes) -> RawSegment:
    """The rows of `write_raw`."""
    with numpy.load(io.BytesIO(data), allow_pickle=False) as arrays:
        header = json.loads(arrays[HEADER].tobytes())
        return RawSegment(
            ids=tuple(header["ids"]),
            skipped={reason: SkippedCount(**count) for reason, count in header["skipped"].items()},
            tables=_read_files(arrays, "tables", header["tables"]),
            closed_book=_read_files(arrays, "closed_book", header["closed_book"]),
            **{name: arrays[name] for name in ARRAYS},
        )


def _read_files(arrays: Mapping[str, NDArray[numpy.uint8]], name: str, count: int) -> tuple[bytes, ...]:
    return tuple(arrays[f"{name}{number}"].tobytes() for number in range(count))


def _bytes(data: bytes) -> NDArray[numpy.uint8]:
    return numpy.frombuffer(data, numpy.uint8)


@dataclass(frozen=True)
class PartJob:
    """A part whose rows are being made."""

    inputs: str
    result: Callable[[], RawSegment]


@dataclass(frozen=True)
class SegmentJob:
    """A segment whose rows are being made. The parts of one that grows are stored with it."""

    key: SegmentKey
    members: Sequence[Member]
    parts: Sequence[PartJob]
    grows: bool

    def result(self) -> "SegmentRows":
        """All rows. Blocks."""
        raws = [part.result() for part in self.parts]
        pairs = zip(self.parts, raws, strict=True) if self.grows else ()
        digests = {member.document.document_id: member.document.digest for member in self.members}
        return SegmentRows(self.key, digests, join_parts(raws), {part.inputs: write_raw(raw) for part, raw in pairs})


@dataclass(frozen=True)
class SegmentRows:
    """All rows of a segment, with the digests of its documents' versions, and the parts to store by their inputs."""

    key: SegmentKey
    digests: Mapping[str, str]
    raw: RawSegment
    parts: Mapping[str, bytes]


@dataclass(frozen=True)
class SegmentJobs:
    """Starts the jobs of a build. `inputs` is a digest of what all parts depend on."""

    corpus: SegmentStore
    store: ObjectStore
    workers: Workers
    inputs: str
    closed_book_below: int

    def start(self, key: SegmentKey, *, grows: bool = False) -> SegmentJob:
        """Start to make the rows of a segment. Blocks until the texts are read."""
        members = self.corpus.members(key.number)
        result = self.corpus.segment_result(key.number)
        stored = {part.inputs: part for part in result.parts} if result else {}
        parts = [self._start_part(part, stored) for part in split_members(members)]
        return SegmentJob(key, members, parts, grows)

    def _start_part(self, members: Sequence[Member], stored: Mapping[str, StoredPart]) -> PartJob:
        inputs = fingerprint(self.inputs, [(member.document.document_id, member.fingerprint) for member in members])
        known = stored.get(inputs)
        if known is not None:
            try:
                raw = read_raw(self.store.get(known.ref))
            except (NotFound, CorruptObject):
                # An erasure deleted it, or its bytes are damaged.
                pass
            else:
                if UNREADABLE not in raw.skipped:
                    return PartJob(inputs, lambda: raw)
        task = replace(MemberReader(self.store).read(members), closed_book_below=self.closed_book_below)
        return PartJob(inputs, self.workers.submit(make_segment, task))
