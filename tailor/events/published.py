"""Facts are checked for sense: an event that claims more than the registry itself has published is not acted on.

A compacted topic has gaps, which are not a fault: only a revision or generation beyond the registry's newest one is. Kafka's rules keep
others from publishing such an event; this is the second line of defence.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import grpc

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import PermissionDenied, Reason
from tailor.events.consumer import Handler
from tailor.events.envelope import Event, decode
from tailor.rpc.status import wire_errors
from tailor.telemetry import EVENTS

SPECIALISTS = "specialist.changed.v1"
SERVING = "specialist.serving.v1"
ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Newest:
    """What the registry published last of one specialist; zeros of one that it does not know."""

    revision: int = 0
    generation: int = 0


class PublishedRevisions:
    """What the registry has published, asked again whenever an event claims more. Thread-safe.

    `ask` blocks until the registry answers.
    """

    def __init__(self, ask: Callable[[], Mapping[str, Newest]]) -> None:
        self._ask = ask
        self._known: Mapping[str, Newest] = {}
        self._lock = threading.Lock()

    def checked(self, apply: Handler) -> Handler:
        """A handler that applies an event only if the registry published as much, and else raises PermissionDenied(BEYOND_THE_REGISTRY)."""

        def check_and_apply(event: Event) -> None:
            claim = claim_of(event)
            if claim is not None and not self._covers(*claim):
                EVENTS.labels(event.topic, "beyond_the_registry").inc()
                raise PermissionDenied(
                    Reason.BEYOND_THE_REGISTRY,
                    f"{event.topic} at offset {event.offset} of partition {event.partition} claims more than the registry has "
                    "published, so it was not acted on. Find out who wrote it: only the registry may.",
                )
            apply(event)

        return check_and_apply

    def _covers(self, name: str, claimed: Newest) -> bool:
        if self._is_known(name, claimed):
            return True
        with self._lock:
            # Another thread may have asked meanwhile; what it learned can only be newer.
            if not self._is_known(name, claimed):
                self._known = self._ask()
        return self._is_known(name, claimed)

    def _is_known(self, name: str, claimed: Newest) -> bool:
        known = self._known.get(name, Newest())
        return claimed.revision <= known.revision and claimed.generation <= known.generation


def claim_of(event: Event) -> tuple[str, Newest] | None:
    """The specialist that an event is about, and what it claims; None for an event that claims nothing."""
    if event.value is None:
        return None
    if event.topic == SPECIALISTS:
        definition = decode(event, models_pb2.SpecialistChanged)
        return definition.name, Newest(revision=definition.revision)
    if event.topic == SERVING:
        serving = decode(event, models_pb2.SpecialistServing)
        return serving.specialist, Newest(generation=serving.generation)
    return None


def ask_registry(channel: grpc.Channel) -> Mapping[str, Newest]:
    """What the registry published last of every specialist. Blocks; raises Unavailable if it does not answer."""
    stub = registry_pb2_grpc.RegistryServiceStub(channel)
    return {entry.name: Newest(entry.revision, entry.generation) for page in _pages(stub) for entry in page.specialists}


def _pages(stub: registry_pb2_grpc.RegistryServiceStub) -> Iterator[registry_pb2.ListRevisionsResponse]:
    token = ""
    while True:
        with wire_errors("registry"):
            page = stub.ListRevisions(registry_pb2.ListRevisionsRequest(page_token=token), timeout=ASK_SECONDS)
        yield page
        token = page.next_page_token
        if not token:
            return
