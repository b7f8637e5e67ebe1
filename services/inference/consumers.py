"""The topics that every replica of inference reads from the beginning (erasures: `bootstrap.py`), and the handler of each."""

from services.inference import handlers, routing, wire
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
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
SEEN = "replica.seen.v1"


class ServingConsumer:
    """Applies `specialist.serving.v1`."""

    def __init__(self, models: ModelServer, deployments: Deployments, publish: PublishReport, persist: Persist) -> None:
        self._models = models
        self._deployments = deployments
        self._publish = publish
        self._persist = persist

    def apply(self, event: Event) -> None:
        """Apply one event. A name that is served on another base moves there."""
        message = None if event.value is None else decode(event, models_pb2.SpecialistServing)
        if message is not None and message.ended:
            self._models.table.end(event.key, message.generation)
            return
        if message is None:
            self._models.table.remove(event.key)
            return
        if not self._is_own(message):
            self._models.table.move(wire.to_moved(message))
            return
        served = wire.to_served(message)
        log.info("applying", specialist=served.specialist, generation=served.generation)
        self._persist(
            f"adapter of {served.specialist}, generation {served.generation}",
            lambda: handlers.apply_serving(self._models, self._publish, served),
        )

    def _is_own(self, message: models_pb2.SpecialistServing) -> bool:
        base = self._deployments.find_base(message.base, message.adapter_digest)
        is_merged = bool(message.adapter_digest) and message.adapter_digest == self._models.merged
        return is_merged or base in ("", self._models.base)


class ReplicaConsumer:
    """Applies `replica.seen.v1`. Before the models are loaded, only `deployments` learns of it."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self.models: ModelServer | None = None

    def apply(self, event: Event) -> None:
        if event.value is None:
            return
        message = decode(event, models_pb2.ReplicaSeen)
        self._deployments.see(wire.to_replica(message), leaving=message.leaving)
        if self.models is not None:
            routing.hand_over_moved(self.models, self._deployments)


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
