"""A decodable but odd event is handled or rejected as invalid by every handler of every topic. It never crashes a process."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.inference.consumers import (
    SEEN,
    SERVING,
    SPECIALISTS,
    ReplicaConsumer,
    ServingConsumer,
    SpecialistConsumer,
)
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
from services.ingestion.adapters.barrier import POLICY_APPLIED, CurrentBarrier
from tailor.api.events.v1 import documents_pb2, drafts_pb2
from tailor.cli.events import message_type
from tailor.errors import InvalidArgument, Reason, TailorError
from tailor.events.envelope import Event, decode
from tailor.events.erased import ERASED, ErasedDocuments, Forgotten, forgetting
from tailor.events.memory import MemoryProducer
from tailor.events.topics import load_topics
from tests.edge_case_messages import odd_messages
from tests.unit.inference.fakes import make_world

Handlers = Mapping[str, Callable[[Event], None]]

# Handlers that work on SQL: tests/integration/test_odd_events_sql.py.
EXAMPLES = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def ingestion() -> Handlers:
    return {POLICY_APPLIED: CurrentBarrier().apply}


def inference() -> Handlers:
    world = make_world()
    serve = ServingConsumer(world.models, Deployments(), world.published.report, lambda what, work: work())
    replicas = ReplicaConsumer(Deployments())
    replicas.models = world.models
    return {SERVING: serve.apply, SPECIALISTS: SpecialistConsumer(Definitions()).apply, SEEN: replicas.apply}


def erasures() -> Handlers:
    forget = forgetting("training", lambda erased: Forgotten({"rows": 1}), MemoryProducer(), lambda document_id: None)

    def both(event: Event) -> None:
        ErasedDocuments().apply(event)
        forget(event)

    return {ERASED: both}


SERVICES = {build.__name__: build for build in (ingestion, inference, erasures)}
CASES = [(name, topic) for name, build in SERVICES.items() for topic in build()]


@pytest.mark.parametrize(("service", "topic"), CASES)
@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_a_handler(service: str, topic: str, data: Any) -> None:
    message = data.draw(odd_messages(message_type(load_topics()[topic].schema)))
    try:
        SERVICES[service]()[topic](Event(topic, "key", message.SerializeToString()))
    except TailorError:
        return


def test_every_topic_of_every_group_is_covered() -> None:
    covered = {(name, topic) for name, topic in CASES if name != "erasures"}
    on_sql = {("ingestion", "document.rejected.v1"), ("anonymization", "document.ingested.v1")}
    expected = {
        (service, topic.name)
        for topic in load_topics().values()
        for service in topic.consumers
        if service in ("anonymization", "ingestion", "inference") and topic.name != ERASED and not topic.raw_zone
    }
    assert expected - covered == on_sql


def test_a_nul_and_an_impossible_time_are_invalid_and_an_unknown_enum_value_is_carried_through() -> None:
    for odd in (
        documents_pb2.DocumentRejected(document_id="doc_\0"),
        drafts_pb2.DraftCreated(draft_id="drf_1", create_time=Timestamp(seconds=2**61)),
    ):
        with pytest.raises(InvalidArgument) as caught:
            decode(Event("t", "k", odd.SerializeToString()), type(odd))
        assert caught.value.reason == Reason.INVALID_VALUE
    newer = documents_pb2.DocumentRejected(document_id="doc_1")
    newer.reason = 999  # type: ignore[assignment]
    assert decode(Event("t", "k", newer.SerializeToString()), documents_pb2.DocumentRejected).reason == 999
