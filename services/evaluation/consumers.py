"""The topics that evaluation reads, and the handler that each event goes to. Decodes and translates; decides nothing."""

from collections.abc import Callable

from services.evaluation import handlers, wire
from services.evaluation.adapters.sql import SqlArtifacts, SqlEvaluations
from services.evaluation.domain import AnnouncedDataset, Specialists
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import Event, decode, derive_id
from tailor.wire import to_ref

TRAINED = "adapter.trained.v1"
BUILT = "dataset.built.v1"
SPECIALISTS = "specialist.changed.v1"
SERVING = "specialist.serving.v1"


class Consumers:
    """Translates events for the handlers."""

    def __init__(self, artifacts: SqlArtifacts, evaluations: SqlEvaluations, specialists: Specialists) -> None:
        self._artifacts = artifacts
        self._evaluations = evaluations
        self._specialists = specialists

    def topics(self) -> dict[str, Callable[[Event], None]]:
        """The handlers of the topics that the replicas share as a group."""
        return {TRAINED: self.on_adapter, BUILT: self.on_dataset}

    def tables(self) -> dict[str, Callable[[Event], None]]:
        """The handlers of the topics that every replica reads from the beginning."""
        return {SPECIALISTS: self.on_specialist, SERVING: self.on_serving}

    def on_adapter(self, event: Event) -> None:
        """Queue an evaluation. Reward adapters never serve, so they are not evaluated."""
        message = decode(event, models_pb2.AdapterTrained)
        if message.kind == models_pb2.ADAPTER_KIND_POLICY:
            adapter = wire.to_adapter(message)
            evaluation_id = derive_id("evl", "trained", adapter.digest)
            handlers.queue_evaluation(self._artifacts, self._evaluations, adapter, evaluation_id)

    def on_dataset(self, event: Event) -> None:
        message = decode(event, models_pb2.DatasetBuilt)
        ranked_for = message.specialist if message.kind == models_pb2.DATASET_KIND_PREFERENCE else ""
        self._artifacts.datasets.add(AnnouncedDataset(message.digest, to_ref(message.manifest), ranked_for))

    def on_serving(self, event: Event) -> None:
        self._specialists.update_serving(wire.to_serving(decode(event, models_pb2.SpecialistServing)))

    def on_specialist(self, event: Event) -> None:
        self._specialists.update_terms(wire.to_terms(decode(event, models_pb2.SpecialistChanged)))
