"""Makes the rows of segments, part by part, from stored parts where their documents did not change."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.synthetic.building.parts import join_parts, read_raw, split_members, write_raw
from services.synthetic.building.ports import SegmentStore, Workers
from services.synthetic.building.reading import MemberReader
from services.synthetic.building.segments import RawSegment, make_segment
from services.synthetic.corpus import UNREADABLE, Member, SegmentKey, StoredPart
from services.synthetic.domain import fingerprint
from tailor.errors import CorruptObject, NotFound
from tailor.storage.protocol import ObjectStore


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
    quiz_below: int

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
                if UNREADABLE not in raw.left_out:
                    return PartJob(inputs, lambda: raw)
        task = replace(MemberReader(self.store).read(members), quiz_below=self.quiz_below)
        return PartJob(inputs, self.workers.submit(make_segment, task))
