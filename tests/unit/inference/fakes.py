"""Fakes of the engine and of everything around inference."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from services.inference import handlers
from services.inference.adapter_cache import AdapterCache
from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.adapters.drafts import DraftArchive, DraftBucket
from services.inference.adapters.forwarding import Forwarder
from services.inference.adapters.model_store import VerifiedLibrary
from services.inference.admission import Admission
from services.inference.compute_meter import ComputeMeter
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
from services.inference.domain import (
    CANCELLED,
    LENGTH,
    STOPPED,
    AdapterRef,
    AnswerPiece,
    Caller,
    ChatMessage,
    Draft,
    DraftFeedback,
    DraftRecord,
    LikelyToken,
    OutcomeReport,
    Probe,
    Sampling,
    Score,
    ServedModel,
    ServingReport,
    StoredFeedback,
    StoredOutcome,
    TokenLogProbability,
    Transcript,
)
from services.inference.generation import DraftRecorder, Inference, ModelServer
from services.inference.ports import AnnounceCall, InferenceEngine, Stream
from services.inference.serving_table import ServingTable
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import Labels

KEY = Caller("key", "team", frozenset(), "key_0000000000000001")
EVALUATION = Caller("service", "evaluation")
CONSOLE = Caller("service", "console")


@dataclass
class FakeStream(Stream):
    """Writes `word ` up to max_tokens, or all of `say` at the end, or half an answer before it `fails`; waits for `gate` before each piece after `ungated` ones."""

    adapter: str
    sampling: Sampling
    gate: threading.Event
    say: str = ""
    fails: TailorError | None = None
    ungated: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __iter__(self) -> Iterator[AnswerPiece]:
        if self.say:
            yield AnswerPiece(self.say, len(self.say.split()), STOPPED)
            return
        if self.fails:
            yield AnswerPiece("half an ", 2)
            raise self.fails
        for count in range(1, self.sampling.max_tokens + 1):
            while count > self.ungated and not self.gate.wait(0.01):
                if self.cancelled.is_set():
                    break
            if self.cancelled.is_set():
                yield AnswerPiece("", count - 1, CANCELLED)
                return
            finish = LENGTH if count == self.sampling.max_tokens else ""
            yield AnswerPiece("word ", count, finish, log_probabilities(self.sampling.top_log_probabilities))

    def cancel(self) -> None:
        self.cancelled.set()


def log_probabilities(top: int | None) -> tuple[TokenLogProbability, ...]:
    """The log-probabilities that the fake engine gives for every word."""
    if top is None:
        return ()
    likely = [LikelyToken("word ", -0.5), LikelyToken("verb ", -1.5)]
    return (TokenLogProbability(likely[0], tuple(likely[:top])),)


class FakeEngine(InferenceEngine):
    """Counts one token per word, and records its calls and the adapters that it holds."""

    def __init__(self, context_length: int = 64) -> None:
        self.context_length = context_length
        self.device = "2 CPU cores"
        self.loaded: dict[str, Path] = {}
        self.unloaded: list[str] = []
        self.streams: list[FakeStream] = []
        self.encoded: list[tuple[ChatMessage, ...]] = []
        self.thinking: list[bool] = []
        self.say = ""
        self.nats = -2.0
        self.fails: TailorError | None = None
        self.ungated = 0
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, messages: Sequence[ChatMessage], *, thinking: bool = False) -> tuple[int, ...]:
        self.encoded.append(tuple(messages))
        self.thinking.append(thinking)
        return tuple(range(sum(len(message.content.split()) for message in messages)))

    def check_schema(self, schema: str, cancelled: Callable[[], bool]) -> None:
        if "oneOf" in schema:
            raise InvalidArgument(
                Reason.INVALID_SCHEMA, "json_schema: oneOf.", field_violations={"json_schema": "oneOf."}
            )

    def load(self, digest: str, folder: Path) -> None:
        self.loaded[digest] = folder

    def unload(self, digest: str) -> None:
        del self.loaded[digest]
        self.unloaded.append(digest)

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> Stream:
        assert not adapter or adapter in self.loaded
        stream = FakeStream(adapter, sampling, self.gate, self.text(adapter), self.fails, self.ungated)
        self.streams.append(stream)
        return stream

    def text(self, adapter: str) -> str:
        return self.say

    def score_tokens(self, tokens: tuple[int, ...], prompt_length: int, adapter: str) -> Score:
        assert not adapter or adapter in self.loaded
        answer = len(tokens) - prompt_length
        return Score(self.nats * answer, answer)

    def score(self, messages: Sequence[ChatMessage], completion: str, adapter: str) -> Score:
        return Score(-float(len(completion)), len(completion.split()) + 1)

    def watch(self, stop: threading.Event, beat: Callable[[], None]) -> None:
        stop.wait()

    def close(self) -> None:
        """Does nothing, because nothing was started."""


class FakeLibrary(VerifiedLibrary):
    """Has every adapter, except those in `bad` and while it is `down`."""

    def __init__(self) -> None:
        self.bad: set[str] = set()
        self.probe_rows: list[Probe] = []
        self.down = False

    def fetch(self, adapter: AdapterRef) -> Path:
        if self.down:
            raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")
        if adapter.digest in self.bad:
            raise FailedPrecondition(Reason.WRONG_BASE, "The adapter was trained on another base.")
        return Path("/adapters") / adapter.digest

    def probes(self, adapter: AdapterRef) -> list[Probe]:
        return self.probe_rows

    def drop(self, digest: str) -> bool:
        return False


class Published:
    """Collects what is published; `down` makes it fail like a lost broker."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.reports: list[ServingReport] = []
        self.down = False

    def draft(self, draft: Draft) -> None:
        self._check()
        self.drafts.append(draft)

    def wait_for_draft(self, run: Callable[[threading.Event], None]) -> None:
        """Let a loop run in a thread until it has published a draft, for at most a minute."""
        stop = threading.Event()
        thread = threading.Thread(target=run, args=(stop,))
        thread.start()
        for _ in range(3000):
            if self.drafts or stop.wait(0.02):
                break
        stop.set()
        thread.join(60)

    def report(self, report: ServingReport) -> None:
        self._check()
        self.reports.append(report)

    def _check(self) -> None:
        if self.down:
            raise Unavailable(Reason.KAFKA_UNAVAILABLE, "The broker does not answer.")


class FakeArchive(DraftArchive):
    """Collects the texts of drafts, and has the drafts that a test adds; their stored texts are in `objects`."""

    def __init__(self) -> None:
        self.offered: list[tuple[Draft, Transcript]] = []
        self.records: dict[str, DraftRecord] = {}
        store = MemoryStore()
        self.objects = store.objects
        self.texts = DraftBucket(store)
        self.feedback: list[tuple[DraftFeedback, str]] = []
        self.outcomes: list[tuple[OutcomeReport, str]] = []

    def keep(self, draft: Draft, transcript: Transcript) -> None:
        self.offered.append((draft, transcript))

    def draft(self, draft_id: str) -> DraftRecord:
        if draft_id not in self.records:
            raise NotFound(Reason.UNKNOWN_DRAFT, "The registry's own words.")
        return self.records[draft_id]

    def store_feedback(self, feedback: DraftFeedback, key_id: str) -> StoredFeedback:
        if feedback.verdict not in ("accepted", "edited", "rejected"):
            violations = {"verdict": "must be accepted, edited or rejected"}
            raise InvalidArgument(Reason.INVALID_FEEDBACK, "The feedback is invalid.", field_violations=violations)
        self.feedback.append((feedback, key_id))
        return StoredFeedback("fbk_1", bool(feedback.edited_text), 1_700_000_000.5)

    def store_outcome(self, report: OutcomeReport, key_id: str) -> StoredOutcome:
        if report.specialist == "never-created":
            raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, says the registry.")
        self.outcomes.append((report, key_id))
        return StoredOutcome("out_1", report.specialist or "memos", 3 if report.draft_id else 0, 1_700_000_000.5)


class FakeAnonymizer(AnonymizationClient):
    """Replaces the values of `pairs`, which are values by surrogate; raises `failures` first."""

    def __init__(self, pairs: Mapping[str, str] | None = None) -> None:
        self.pairs = dict(pairs or {})
        self.anonymized: list[Labels] = []
        self.hidden: list[tuple[tuple[str, ...], Labels, tuple[str, ...]]] = []
        self.edits: list[tuple[str, tuple[str, ...], Labels]] = []
        self.failures: list[TailorError] = []

    def anonymize(self, texts: Sequence[str], labels: Labels) -> tuple[str, ...]:
        self.anonymized.append(labels)
        return self._replace(texts)

    def anonymize_edit(self, text_id: str, text: str, passed: Sequence[str], labels: Labels) -> str:
        """Keeps the values that occur in the passed texts."""
        self.edits.append((text_id, tuple(passed), labels))
        kept = {value for value in self.pairs.values() if any(value in other for other in passed)}
        return self._replace([text], kept)[0]

    def hide(
        self, texts: Sequence[str], labels: Labels, avoid: Sequence[str]
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        self.hidden.append((tuple(texts), labels, tuple(avoid)))
        return self._replace(texts), dict(self.pairs)

    def _replace(self, texts: Sequence[str], kept: Collection[str] = ()) -> tuple[str, ...]:
        if self.failures:
            raise self.failures.pop(0)
        clean = list(texts)
        for surrogate, value in sorted(self.pairs.items(), key=lambda pair: -len(pair[1])):
            clean = [text if value in kept else text.replace(value, surrogate) for text in clean]
        return tuple(clean)


@dataclass
class World:
    """Inference with all its fakes within reach."""

    engine: FakeEngine
    library: FakeLibrary
    published: Published
    inference: Inference
    archive: FakeArchive
    anonymizer: FakeAnonymizer

    @property
    def models(self) -> ModelServer:
        return self.inference.models


def make_world(
    *,
    slots: int = 2,
    max_concurrent: int = 4,
    max_queued: int = 2,
    wait_seconds: float = 60.0,
    table: ServingTable | None = None,
    engine: InferenceEngine | None = None,
    announce_call: AnnounceCall = nullcontext,
) -> World:
    """Inference over fakes."""
    fake, library, published, archive = FakeEngine(), FakeLibrary(), Published(), FakeArchive()
    anonymizer, numbers = FakeAnonymizer(), iter(range(1, 10_000))
    fake = engine if isinstance(engine, FakeEngine) else fake
    cache = AdapterCache(engine or fake, library, slots, wait_seconds)
    inference = Inference(
        models=ModelServer(
            "tiny", engine or fake, cache, table or ServingTable(), announce_call, ComputeMeter(fake.device)
        ),
        admission=Admission(max_concurrent, max_queued),
        definitions=Definitions(),
        anonymizer=anonymizer,
        drafts=DraftRecorder(
            published.draft, archive.keep, b"0123456789abcdef", new_id=lambda: f"drf_{next(numbers):032x}"
        ),
        archive=archive,
    )
    return World(fake, library, published, inference, archive, anonymizer)


def forwarder(deployments: Deployments | None = None) -> Forwarder:
    """Passes calls on to the addresses that the deployments have."""
    return Forwarder(deployments or Deployments(), grpc.insecure_channel)


def apply_serving(world: World, served: ServedModel) -> None:
    """Apply a decision of the registry."""
    handlers.apply_serving(world.models, world.published.report, served)


def adapter(name: str) -> AdapterRef:
    """An adapter whose digest is the name."""
    return AdapterRef(name, Ref(f"s3://models/adapters/{name}/manifest.json", name, 100))


def served(specialist: str, generation: int, name: str = "", system_prompt: str = "") -> ServedModel:
    """A decision of the registry."""
    return ServedModel(specialist, generation, adapter(name) if name else None, "dataset", system_prompt)
