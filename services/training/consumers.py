"""The events that training listens to."""

from collections.abc import Mapping

from services.training import handlers, wire
from services.training.handlers import Context
from tailor.api.events.v1 import models_pb2
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode


class Consumers:
    """One method per topic."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def topics(self) -> Mapping[str, Handler]:
        """The handler of each topic."""
        return {"dataset.built.v1": self.dataset_built}

    def dataset_built(self, event: Event) -> None:
        """A dataset exists: train on it."""
        handlers.dataset_built(self._context, wire.to_built(decode(event, models_pb2.DatasetBuilt)))
