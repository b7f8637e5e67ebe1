"""The events that training listens to."""

from collections.abc import Container, Mapping

from services.training import handlers, wire
from services.training.handlers import Context
from tailor.api.events.v1 import models_pb2
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode
from tailor.logging import get_logger

log = get_logger(__name__)


class Consumers:
    """One method per topic."""

    def __init__(self, context: Context, erased: Container[str] = frozenset()) -> None:
        self._context = context
        self._erased = erased

    def topics(self) -> Mapping[str, Handler]:
        """The handler of each topic."""
        return {"dataset.built.v1": self.dataset_built}

    def dataset_built(self, event: Event) -> None:
        """A dataset exists: train on it, unless one of its documents was erased meanwhile."""
        message = decode(event, models_pb2.DatasetBuilt)
        if any(document_id in self._erased for document_id in message.document_ids):
            log.info("a document of the dataset is erased", dataset=message.digest)
        else:
            handlers.dataset_built(self._context, wire.to_built(message))
