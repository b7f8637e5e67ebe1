"""A registry over PostgreSQL and inference replicas over a fake engine, with events passed in both directions, for tests of canaries."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.inference import handlers as inference_handlers
from services.inference.adapters.events import ReportPublisher
from services.inference.consumers import ServingConsumer
from services.inference.deployments import Deployments
from services.inference.domain import AnswerPiece, Caller, ChatMessage, GenerationRequest, Sampling
from services.inference.generation import Cancellation
from services.inference.wire import from_draft
from services.registry.adapters import tables
from services.registry.adapters.canaries import CANARY, DEFERRED
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.datasets import StoredDatasetDocuments
from services.registry.adapters.sql import transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import signer
from services.registry.consumers import Consumers
from services.registry.domain import RETIRE, CanaryPolicy, Gate, PrimaryMetric, Serving, Specialist
from services.registry.handlers import canaries, specialists
from services.registry.queries import Queries
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import Reason, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.jobs import JobKind, Jobs
from tailor.rpc.identity import Identity
from tailor.storage.memory import MemoryStore
from tests.datasets import built
from tests.evaluations import make_evaluated, make_figures
from tests.jobs import make_due, run_due
from tests.unit.inference.fakes import FakeEngine, FakeStream, make_world

NAME = "reports"
POLICY = CanaryPolicy(percent=30, min_calls=10, max_seconds=600)
SPECIALIST = Specialist(NAME, "tiny", "lora", gate=Gate(PrimaryMetric("rougeL"), beat=("base",)), on_erasure=RETIRE)
KEYS = tuple(Caller("key", "team", key_id=f"key_{number:016x}") for number in range(40))


@dataclass
class TimedStream(FakeStream):
    """Advances the engine's clock by the adapter's seconds per token."""

    engine: "TimedEngine | None" = None

    def __iter__(self) -> Iterator[AnswerPiece]:
        assert self.engine is not None
        for piece in super().__iter__():
            self.engine.moment += self.engine.seconds.get(self.adapter, 0.1)
            yield piece


class TimedEngine(FakeEngine):
    """An engine with its own clock: `seconds` per token by adapter. Answers of adapters in `broken` fail half-way."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self.broken: set[str] = set()
        self.moment = 0.0

    def generate(self, prompt: tuple[int, ...], adapter: str, sampling: Sampling) -> TimedStream:
        fails = Unavailable(Reason.ENGINE_FAILED, "It broke.") if adapter in self.broken else None
        assert not adapter or adapter in self.loaded
        return TimedStream(adapter, sampling, self.gate, fails=fails, engine=self)


class Replica:
    """An inference replica. What it publishes stays in its own producer."""

    def __init__(self, name: str) -> None:
        self.producer = MemoryProducer("inference")
        self.engine = TimedEngine()
        self.world = make_world(engine=self.engine, slots=3)
        drafts = replace(
            self.world.inference.drafts,
            now=lambda: self.engine.moment,
            new_id=lambda: f"drf_{name}_{len(self.world.published.drafts)}",
        )
        self.inference = replace(self.world.inference, drafts=drafts)
        publish = ReportPublisher(self.producer, name).publish
        self.serving = ServingConsumer(self.inference.models, Deployments(), publish, lambda _, work: work())

    def ask(self, caller: Caller) -> str:
        """The adapter that a caller's question was routed to, answered or not."""
        question = GenerationRequest(NAME, (ChatMessage("user", "Write."),), Sampling(max_tokens=3))
        with suppress(TailorError):
            for _ in inference_handlers.generate(self.inference, caller, question, Cancellation()):
                pass
        return self.world.published.drafts[-1].served.adapter_digest


class FakeEvaluation:
    """Records requested evaluations."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fails: TailorError | None = None

    def __call__(self, adapter_digest: str, request_id: str) -> None:
        if self.fails:
            raise self.fails
        self.requests.append((adapter_digest, request_id))


class House:
    """A registry. A second one over the same database is another replica of it, or the same one restarted."""

    def __init__(self, engine: Engine, policy: CanaryPolicy | None = None) -> None:
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = transactions(engine, self.outbox)
        self.queries = Queries(engine)
        self.store = MemoryStore()
        self.evaluation = FakeEvaluation()
        self.topics = Consumers(
            self.begin,
            StoredDatasetDocuments(self.store),
            StoredComparedTexts(self.store),
            self.evaluation,
            signer(Identity("registry", Ed25519PrivateKey.generate())),
        ).topics()
        self.later = 0.0
        kinds = [
            JobKind(CANARY, partial(canaries.decide_canary, self.begin, now=self._now)),
            JobKind(DEFERRED, partial(canaries.evaluate_deferred, self.evaluation)),
        ]
        self.jobs = Jobs(engine, tables.jobs, kinds)
        self.engine = engine
        specialists.create_specialist(self.begin, replace(SPECIALIST, canary=policy))

    def train(self, digest: str, *, rouge: float = 0.2, dataset: str = "") -> None:
        """Add an adapter that is evaluated against the incumbent."""
        trained = models_pb2.AdapterTrained(
            digest=digest, kind=models_pb2.ADAPTER_KIND_POLICY, specialist=NAME, base="tiny", dataset_digest=dataset
        )
        trained.manifest.uri = f"s3://models/adapters/{digest}/manifest.json"
        self._receive("dataset.built.v1", built(self.store, dataset, NAME, [f"doc_{dataset}"]))
        self._receive("adapter.trained.v1", trained)
        self.evaluate(digest, rouge=rouge)

    def evaluate(self, digest: str, *, rouge: float = 0.2) -> None:
        serving = self.serving()
        evaluated = make_evaluated(
            digest,
            NAME,
            make_figures("rougeL", base=0.1, incumbent=0.1, candidate=rouge),
            evaluation_id=f"evl-{digest}-{serving.generation}",
            incumbent_generation=serving.generation,
            incumbent_digest=serving.adapter_digest,
        )
        self._receive("adapter.evaluated.v1", evaluated)

    def start(self, digest: str, policy: CanaryPolicy = POLICY) -> Serving:
        return canaries.start_canary(self.begin, NAME, digest, self.serving().generation, lambda _: policy)

    def serving(self) -> Serving:
        with self.begin() as tx:
            return tx.servings.current(NAME)

    def canary(self) -> registry_pb2.Canary:
        canary = self.queries.canary(NAME)
        assert canary is not None
        return canary

    def check(self, *, later: float = 0) -> None:
        """Decide the canaries a number of seconds later, then request the deferred evaluations."""
        self.later = later
        for _ in range(2):
            make_due(self.engine, tables.jobs)
            run_due(self.jobs)

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.later)

    def decisions(self) -> list[Event]:
        while self.outbox.relay():
            pass
        return self.producer.events("specialist.serving.v1")

    def send_to(self, *replicas: Replica) -> None:
        """Let the replicas read every decision."""
        for replica in replicas:
            for event in self.decisions():
                replica.serving.apply(event)

    def receive_from(self, *replicas: Replica) -> None:
        """Let the registry read everything that the replicas published, twice."""
        for _ in range(2):
            for replica in replicas:
                for event in replica.producer.events("adapter.served.v1"):
                    self.topics["adapter.served.v1"](event)
                for draft in replica.world.published.drafts:
                    self._receive("draft.created.v1", from_draft(draft, "tiny"))

    def _receive(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]
