"""The topics that inference reads, and the handler that each event goes to. Every replica reads both topics from the beginning."""

from services.inference import handlers, wire
from services.inference.definitions import Definitions
from services.inference.generation import ModelServer
from services.inference.ports import Persist, PublishReport
from tailor import codec
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import Event, decode
from tailor.logging import get_logger
from tailor.values import SamplingDefaults, Selection

log = get_logger(__name__)

SERVING = "specialist.serving.v1"
SPECIALISTS = "specialist.changed.v1"


class ServingConsumer:
    """Applies `specialist.serving.v1`."""

    def __init__(self, models: ModelServer, publish: PublishReport, persist: Persist) -> None:
        self._models = models
        self._publish = publish
        self._persist = persist

    def apply(self, event: Event) -> None:
        """Apply one event. Specialists of other bases, also those that moved to one, belong to other deployments."""
        message = None if event.value is None else decode(event, models_pb2.SpecialistServing)
        if message is not None and message.ended:
            self._models.table.end(event.key, message.generation)
            return
        if message is None or (message.base and message.base != self._models.base):
            self._models.table.remove(event.key)
            return
        served = wire.to_served(message)
        log.info("applying", specialist=served.specialist, generation=served.generation)
        self._persist(
            f"adapter of {served.specialist}, generation {served.generation}",
            lambda: handlers.apply_serving(self._models, self._publish, served),
        )


class SpecialistConsumer:
    """Applies `specialist.changed.v1`."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def apply(self, event: Event) -> None:
        if event.value is None:
            self._definitions.forget(event.key)
            return
        message = decode(event, models_pb2.SpecialistChanged)
        if self._definitions.is_outdated(message.name, message.revision):
            log.info("older definition ignored", specialist=message.name, revision=message.revision)
            return
        if message.deleted:
            self._definitions.forget(message.name)
            return
        self._definitions.define(
            message.name,
            codec.decode(Selection, message.selection).common_labels,
            base=message.base,
            keep_drafts=message.keep_drafts,
            private_prompts=message.private_prompts,
            sampling=codec.decode(SamplingDefaults, message.sampling),
        )
