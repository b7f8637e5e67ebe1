"""Stand-ins for the engine and what surrounds it, for tests of inference."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.inference.adapters.compute import FreeTurns
from services.inference.answering import Inference
from services.inference.domain import (
    CANCELLED,
    LENGTH,
    STOPPED,
    AdapterName,
    Caller,
    Draft,
    DraftRecord,
    LikelyToken,
    Piece,
    Probe,
    Said,
    Sampling,
    Score,
    Served,
    ServedReport,
    TokenLogProbability,
    Turn,
)
from services.inference.handlers import unknown_draft
from services.inference.keeping import Labels
from services.inference.private import Private
from services.inference.serving import Admission, Shelf, Table
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError, Unavailable
from tailor.storage.ref import Ref

KEY = Caller("key", "team", frozenset(), "key_0000000000000001")
EVALUATION = Caller("service", "evaluation")
CONSOLE = Caller("service", "console")


@dataclass
class FakeStream:
    """Writes `word ` up to max_tokens, or `say` whole at the end, or half and `fails`; waits for `gate` before every piece."""

    adapter: str
    sampling: Sampling
    gate: threading.Event
    say: str = ""
    fails: TailorError | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[Piece]:
        if self.say:
            yield Piece(self.say, len(self.say.split()), STOPPED)
            return
        if self.fails:
            yield Piece("half an ", 2)
            raise self.fails
        for count in range(1, self.sampling.max_tokens + 1):
            while not self.gate.wait(0.01):
                if self.cancelled.is_set():
                    break
            if self.cancelled.is_set():
                yield Piece("", count - 1, CANCELLED)
                return
            finish = LENGTH if count == self.sampling.max_tokens else ""
            yield Piece("word ", count, finish, told(self.sampling.top_log_probabilities))

    def cancel(self) -> None:
        self.cancelled.set()


def told(top: int | None) -> tuple[TokenLogProbability, ...]:
    """What the fake engine says of every word."""
    if top is None:
        return ()
    likely = [LikelyToken("word ", -0.5), LikelyToken("verb ", -1.5)]
    return (TokenLogProbability(likely[0], tuple(likely[:top])),)


class FakeEngine:
    """Counts a token for every word; remembers what it was asked and which adapters it holds."""

    def __init__(self, context_length: int = 64) -> None:
        self.context_length = context_length
        self.loaded: dict[str, Path] = {}
        self.unloaded: list[str] = []
        self.streams: list[FakeStream] = []
        self.encoded: list[tuple[Turn, ...]] = []
        self.say = ""
        self.nats = -2.0
        self.fails: TailorError | None = None
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        self.encoded.append(tuple(turns))
        return tuple(range(sum(len(turn.content.split()) for turn in turns)))

    def check_schema(self, schema: str) -> None:
        if "oneOf" in schema:
            raise InvalidArgument(
                Reason.INVALID_SCHEMA, "json_schema: oneOf.", field_violations={"json_schema": "oneOf."}
            )

    def load(self, digest: str, folder: Path) -> None:
        self.loaded[digest] = folder

    def unload(self, digest: str) -> None:
        del self.loaded[digest]
        self.unloaded.append(digest)

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> FakeStream:
        assert not adapter or adapter in self.loaded
        stream = FakeStream(adapter, sampling, self.gate, self.say, self.fails)
        self.streams.append(stream)
        return stream

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        assert not adapter or adapter in self.loaded
        answer = len(tokens) - prompt_length
        return Score(self.nats * answer, answer)

    def score(self, turns: Sequence[Turn], completion: str, adapter: str) -> Score:
        return Score(-float(len(completion)), len(completion.split()) + 1)

    def close(self) -> None:
        """Nothing was started."""


class FakeLibrary:
    """Has every adapter, but for those named bad, or while it is down."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.probe_rows: list[Probe] = []
        self.down = False

    def fetch(self, adapter: AdapterName) -> Path:
        if self.down:
            raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")
        if adapter.digest in self.bad:
            raise FailedPrecondition(Reason.WRONG_BASE, "The adapter was trained on another base.")
        return Path("/adapters") / adapter.digest

    def probes(self, adapter: AdapterName) -> Sequence[Probe]:
        return self.probe_rows

    def drop(self, digest: str) -> bool:
        return False


class Kept:
    """Keeps what is stated; `down` makes it fail like a lost broker."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.reports: list[ServedReport] = []
        self.down = False

    def add(self, statement: Draft | ServedReport) -> None:
        if self.down:
            raise Unavailable(Reason.KAFKA_UNAVAILABLE, "The broker does not answer.")
        if isinstance(statement, Draft):
            self.drafts.append(statement)
        else:
            self.reports.append(statement)


class Archive:
    """Takes every text, and knows the drafts that a test says it does."""

    def __init__(self) -> None:
        self.offered: list[tuple[Draft, Said]] = []
        self.records: dict[str, DraftRecord] = {}
        self.texts: dict[Ref, Said] = {}

    def keep(self, draft: Draft, said: Said) -> None:
        self.offered.append((draft, said))

    def draft(self, draft_id: str) -> DraftRecord:
        if draft_id not in self.records:
            raise unknown_draft()
        return self.records[draft_id]

    def text(self, ref: Ref) -> Said | None:
        return self.texts.get(ref)


class FakeBarrier:
    """Knows the pairs that a test gives it; `fails` makes it fail."""

    def __init__(self) -> None:
        self.pairs: dict[str, str] = {}
        self.asked: list[tuple[tuple[str, ...], Labels, tuple[str, ...]]] = []
        self.fails: TailorError | None = None

    def hide(
        self, texts: Sequence[str], labels: Labels, beside: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        self.asked.append((tuple(texts), labels, tuple(beside)))
        if self.fails:
            raise self.fails
        clean = list(texts)
        for surrogate, value in sorted(self.pairs.items(), key=lambda pair: -len(pair[1])):
            clean = [text.replace(value, surrogate) for text in clean]
        return tuple(clean), dict(self.pairs)


@dataclass
class World:
    """The handlers' inference with everything around it within reach."""

    engine: FakeEngine
    library: FakeLibrary
    kept: Kept
    inference: Inference
    archive: Archive
    barrier: FakeBarrier


def make_world(
    *,
    slots: int = 2,
    max_concurrent: int = 4,
    max_queued: int = 2,
    wait_seconds: float = 0.05,
    table: Table | None = None,
    engine: FakeEngine | None = None,
) -> World:
    """An inference over fakes."""
    engine, library, kept, archive = engine or FakeEngine(), FakeLibrary(), Kept(), Archive()
    barrier = FakeBarrier()
    numbers = iter(range(1, 10_000))
    inference = Inference(
        base="tiny",
        engine=engine,
        shelf=Shelf(engine, library, slots, wait_seconds),
        table=table or Table(),
        admission=Admission(max_concurrent, max_queued),
        turns=FreeTurns(),
        drafts=kept,
        texts=archive,
        archive=archive,
        reports=kept,
        private=Private(),
        barrier=barrier,
        digest_key=b"0123456789abcdef",
        new_draft_id=lambda: f"drf_{next(numbers):032x}",
    )
    return World(engine, library, kept, inference, archive, barrier)


def adapter(name: str) -> AdapterName:
    """An adapter whose digest is the name."""
    return AdapterName(name, Ref(f"s3://models/adapters/{name}/manifest.json", name, 100))


def served(specialist: str, generation: int, name: str = "", system_prompt: str = "") -> Served:
    """A decision of the registry."""
    return Served(specialist, generation, adapter(name) if name else None, "dataset", system_prompt)
