"""The topics that training reads, and the handler that each event goes to. Decodes and translates; decides nothing."""

from collections.abc import Container, Mapping

from services.training import handlers, wire
from services.training.handlers import TrainingPorts
from tailor.api.events.v1 import models_pb2
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode
from tailor.logging import get_logger
from tailor.wire import to_datetime

log = get_logger(__name__)

SPECIALISTS = "specialist.changed.v1"


class Consumers:
    """One method per topic. `erased` contains the ids of erased documents."""

    def __init__(self, ports: TrainingPorts, erased: Container[str] = frozenset()) -> None:
        self._ports = ports
        self._erased = erased

    def topics(self) -> Mapping[str, Handler]:
        """The handler of each topic."""
        return {"dataset.built.v1": self.on_dataset_built}

    def on_specialist(self, event: Event) -> None:
        """Cancel the runs of a deleted specialist. Every replica reads all specialists; the first one cancels."""
        message = decode(event, models_pb2.SpecialistChanged)
        if message.deleted:
            handlers.cancel_runs_of(self._ports.runs, message.name, to_datetime(message.update_time), self._ports.now())

    def on_dataset_built(self, event: Event) -> None:
        """Train on the dataset, unless one of its documents has been erased."""
        built = wire.to_built_dataset(decode(event, models_pb2.DatasetBuilt))
        if handlers.has_erased_document(self._ports.datasets, built.manifest, self._erased):
            log.info("dataset skipped: one of its documents is erased", dataset=built.digest)
        else:
            handlers.queue_run_for_dataset(self._ports, built)
