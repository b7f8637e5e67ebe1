"""A registry over PostgreSQL and inference replicas over a fake engine, with facts going both ways, for tests of canaries."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from services.inference import handlers as inference_handlers
from services.inference.adapters.events import ReportPublisher
from services.inference.consumers import ServingConsumer
from services.inference.domain import Caller, ChatMessage, GenerationRequest, Piece, Sampling
from services.inference.generation import Cancellation
from services.inference.wire import from_draft
from services.registry import canaries, handlers
from services.registry.adapters.queries import Queries
from services.registry.adapters.sql import begin
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import signer
from services.registry.canaries import Watch
from services.registry.comparing import CanaryRules
from services.registry.consumers import Consumers
from services.registry.domain import RETIRE, Specialist
from services.registry.gate import Gate, Threshold
from services.registry.serving import Serving
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import Reason, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.identity import Identity
from tests.unit.inference.fakes import FakeEngine, FakeStream, make_world

NAME = "reports"
RULES = CanaryRules(percent=30, min_calls=10, max_seconds=600)
SPECIALIST = Specialist(NAME, "tiny", "lora", gate=Gate((Threshold("rougeL"),), 1), on_erasure=RETIRE)
KEYS = tuple(Caller("key", "team", key_id=f"key_{number:016x}") for number in range(40))


@dataclass
class TimedStream(FakeStream):
    """Takes its adapter's time for every piece."""

    engine: "TimedEngine | None" = None

    def __iter__(self) -> Iterator[Piece]:
        assert self.engine is not None
        for piece in super().__iter__():
            self.engine.moment += self.engine.seconds.get(self.adapter, 0.1)
            yield piece


class TimedEngine(FakeEngine):
    """By a clock of its own: `seconds` a token by adapter; those in `broken` fail their answers half-way."""

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
    """An inference replica; what it states waits in its own producer."""

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
        self.serving = ServingConsumer(self.inference.models, publish, lambda _, work: work())

    def ask(self, caller: Caller) -> str:
        """The adapter that a caller's question went to, answered or not."""
        question = GenerationRequest(NAME, (ChatMessage("user", "Write."),), Sampling(max_tokens=3))
        with suppress(TailorError):
            for _ in inference_handlers.generate(self.inference, caller, question, Cancellation()):
                pass
        return self.world.published.drafts[-1].served.adapter_digest


class Evaluator:
    """Remembers which adapters are to be measured again."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fails: TailorError | None = None

    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        if self.fails:
            raise self.fails
        self.asked.append((adapter_digest, request_id))


class House:
    """A registry. Another one over the same database is another replica of it, or the same one started again."""

    def __init__(self, engine: Engine, rules: CanaryRules | None = None) -> None:
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, outbox_rows, self.producer)
        self.begin = begin(engine, self.outbox)
        self.queries = Queries(engine)
        self.evaluator = Evaluator()
        self.topics = Consumers(
            self.begin, self.evaluator, signer(Identity("registry", Ed25519PrivateKey.generate()))
        ).topics()
        self.watch = Watch(self.begin, self.evaluator)
        handlers.create_specialist(self.begin, replace(SPECIALIST, canary=rules))

    def train(self, digest: str, *, rouge: float = 0.2, dataset: str = "") -> None:
        """An adapter that was measured beside what serves."""
        built = models_pb2.DatasetBuilt(digest=dataset, specialist=NAME, document_ids=[f"doc_{dataset}"])
        trained = models_pb2.AdapterTrained(digest=digest, kind=1, specialist=NAME, base="tiny", dataset_digest=dataset)
        trained.manifest.uri = f"s3://models/adapters/{digest}/manifest.json"
        self._tell("dataset.built.v1", built)
        self._tell("adapter.trained.v1", trained)
        self.evaluate(digest, rouge=rouge)

    def evaluate(self, digest: str, *, rouge: float = 0.2) -> None:
        serving = self.serving()
        evaluated = models_pb2.AdapterEvaluated(
            evaluation_id=f"evl-{digest}-{serving.generation}",
            adapter_digest=digest,
            specialist=NAME,
            base=models_pb2.Scores(values={"rougeL": 0.1}),
            candidate=models_pb2.Scores(values={"rougeL": rouge, "parity": 0.01}),
            rows=4,
            incumbent_generation=serving.generation,
            incumbent_digest=serving.adapter_digest,
        )
        self._tell("adapter.evaluated.v1", evaluated)

    def start(self, digest: str, rules: CanaryRules = RULES) -> Serving:
        return canaries.start_canary(self.begin, NAME, digest, self.serving().generation, lambda _: rules)

    def serving(self) -> Serving:
        with self.begin() as tx:
            return tx.serving(NAME)

    def canary(self) -> registry_pb2.Canary:
        found = self.queries.canary(NAME)
        assert found is not None
        return found

    def look(self, *, later: float = 0) -> None:
        self.watch.look(datetime.now(UTC) + timedelta(seconds=later))

    def decided(self) -> list[Event]:
        while self.outbox.relay():
            pass
        return self.producer.events("specialist.serving.v1")

    def reaches(self, *replicas: Replica) -> None:
        """The replicas read all that was decided."""
        for replica in replicas:
            for event in self.decided():
                replica.serving.apply(event)

    def hears(self, *replicas: Replica) -> None:
        """The registry reads all that the replicas stated, twice, as it may."""
        for _ in range(2):
            for replica in replicas:
                for event in replica.producer.events("adapter.served.v1"):
                    self.topics["adapter.served.v1"](event)
                for draft in replica.world.published.drafts:
                    self._tell("draft.created.v1", from_draft(draft, "tiny"))

    def _tell(self, topic: str, message: object) -> None:
        self.topics[topic](Event(topic, "key", message.SerializeToString(), {}))  # type: ignore[attr-defined]
