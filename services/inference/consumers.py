"""What serves, whose drafts are kept and whose prompts are private, from events."""

from collections.abc import Callable

from services.inference import handlers
from services.inference.answering import Inference
from services.inference.domain import AdapterName, Canary, Served
from services.inference.keeping import Keeping, Labels
from services.inference.private import Private
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import Event, decode
from tailor.logging import get_logger
from tailor.storage.ref import Ref

log = get_logger(__name__)

SERVING = "specialist.serving.v1"
SPECIALISTS = "specialist.changed.v1"

Persist = Callable[[str, Callable[[], None]], None]


class ServingConsumer:
    """Applies `specialist.serving.v1`. `persist` repeats work that cannot be done yet, saying what it waits for."""

    def __init__(self, inference: Inference, persist: Persist) -> None:
        self._inference = inference
        self._persist = persist

    def apply(self, event: Event) -> None:
        """Apply one event; the specialists of other bases, and those that moved to one, are other deployments' work."""
        message = None if event.value is None else decode(event, models_pb2.SpecialistServing)
        if message is None or (message.base and message.base != self._inference.base):
            handlers.forget_specialist(self._inference, event.key)
            return
        served = to_served(message)
        log.info("applying", specialist=served.specialist, generation=served.generation)
        what = f"adapter of {served.specialist}, generation {served.generation}"
        self._persist(what, lambda: handlers.apply_serving(self._inference, served))


class SpecialistConsumer:
    """Applies `specialist.changed.v1`."""

    def __init__(self, keeping: Keeping, private: Private) -> None:
        self._keeping = keeping
        self._private = private

    def apply(self, event: Event) -> None:
        """Begin or end to keep a specialist's drafts, and to hide its prompts."""
        if event.value is None:
            self._keeping.end(event.key)
            self._private.forget(event.key)
            return
        message = decode(event, models_pb2.SpecialistChanged)
        labels = _labels(message.selection)
        self._private.define(message.name, labels if message.private_prompts else None)
        if message.keep_drafts:
            self._keeping.begin(message.name, labels)
        else:
            self._keeping.end(message.name)


def _labels(selection: models_pb2.Selection) -> Labels:
    """The labels that all documents of a specialist have; empty where they may differ."""
    admitted = (selection.sources, selection.departments, selection.confidentialities)
    source, department, confidentiality = (values[0] if len(values) == 1 else "" for values in admitted)
    return source, department, confidentiality


def to_served(message: models_pb2.SpecialistServing) -> Served:
    """The decision in our own terms."""
    return Served(
        specialist=message.specialist,
        generation=message.generation,
        adapter=_adapter(message) if message.adapter_digest else None,
        dataset_digest=message.dataset_digest,
        system_prompt=message.system_prompt,
        private_prompts=message.private_prompts,
        canary=_canary(message.canary) if message.HasField("canary") else None,
    )


def _canary(message: models_pb2.ServingCanary) -> Canary:
    return Canary(_adapter(message), message.dataset_digest, message.system_prompt, message.percent)


def _adapter(message: models_pb2.SpecialistServing | models_pb2.ServingCanary) -> AdapterName:
    manifest = message.manifest
    return AdapterName(message.adapter_digest, Ref(manifest.uri, manifest.sha256, manifest.size_bytes))
