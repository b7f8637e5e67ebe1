"""The topics that training reads, and the handler that each event goes to. Decodes and translates; decides nothing."""

from collections.abc import Callable, Container, Mapping

from services.training import handlers, pipeline
from services.training.handlers import TrainingPorts
from services.training.pipeline import BuiltDataset
from tailor import codec
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode
from tailor.wire import to_datetime

SPECIALISTS = "specialist.changed.v1"


class Consumers:
    """One method per topic. `erased` contains the ids of erased documents; `record_evaluation` mirrors evaluations, if anything does."""

    def __init__(
        self,
        ports: TrainingPorts,
        erased: Container[str] = frozenset(),
        record_evaluation: Callable[[models_pb2.AdapterEvaluated], None] | None = None,
    ) -> None:
        self._ports = ports
        self._erased = erased
        self._record_evaluation = record_evaluation

    def topics(self) -> Mapping[str, Handler]:
        """The handler of each topic."""
        topics: dict[str, Handler] = {"dataset.built.v1": self.on_dataset_built}
        if record := self._record_evaluation:
            topics["adapter.evaluated.v1"] = lambda event: record(decode(event, models_pb2.AdapterEvaluated))
        return topics

    def on_specialist(self, event: Event) -> None:
        """Note its budget, its limit and whether it thinks, and cancel the runs of a deleted specialist.

        All replicas read all specialists; the first cancels.
        """
        message = decode(event, models_pb2.SpecialistChanged)
        self._ports.budgets[message.name] = message.monthly_budget
        self._ports.max_hours[message.name] = message.max_training_hours
        self._ports.deleted.discard(message.name)
        thinks = message.sampling.thinking in (common_pb2.THINKING_HIDDEN, common_pb2.THINKING_SHOWN)
        (self._ports.thinking.add if thinks else self._ports.thinking.discard)(message.name)
        if message.deleted:
            self._ports.deleted.add(message.name)
            handlers.cancel_runs_of(self._ports.runs, message.name, to_datetime(message.update_time), self._ports.now())

    def on_dataset_built(self, event: Event) -> None:
        """Run the specialist's pipeline, unless one of the dataset's documents has been erased."""
        message = decode(event, models_pb2.DatasetBuilt)
        built = codec.decode(BuiltDataset, message)
        pipeline.queue_run_for_dataset(self._ports, built, self._erased)
