"""Events that evaluation listens to."""

from collections.abc import Callable

from services.evaluation import handlers, wire
from services.evaluation.handlers import Evaluating
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import Event, decode, derive_id

SPECIALISTS = "specialist.changed.v1"
SERVING = "specialist.serving.v1"


class Consumers:
    """Translates events for the handlers."""

    def __init__(self, app: Evaluating) -> None:
        self._app = app

    def topics(self) -> dict[str, Callable[[Event], None]]:
        """What the group shares."""
        return {"adapter.trained.v1": self.adapter, "dataset.built.v1": self.dataset}

    def adapter(self, event: Event) -> None:
        """An adapter was trained; one that never serves is not measured."""
        message = decode(event, models_pb2.AdapterTrained)
        if message.kind == models_pb2.ADAPTER_KIND_POLICY:
            adapter = wire.to_adapter(message)
            handlers.on_adapter(self._app, adapter, derive_id("evl", "trained", adapter.digest))

    def dataset(self, event: Event) -> None:
        """A dataset exists."""
        message = decode(event, models_pb2.DatasetBuilt)
        handlers.on_dataset(self._app, message.digest, wire.to_ref(message.manifest))

    def serving(self, event: Event) -> None:
        """A name means another adapter; every replica reads all of them."""
        handlers.on_serving(self._app, wire.to_serving(decode(event, models_pb2.SpecialistServing)))

    def specialist(self, event: Event) -> None:
        """A specialist is new or changed; every replica reads all of them."""
        handlers.on_terms(self._app, wire.to_terms(decode(event, models_pb2.SpecialistChanged)))
