"""An odd event is stored, or rejected as invalid, by the handlers that work on PostgreSQL. It never crashes a process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from services.ingestion.bootstrap import MIGRATIONS as INGESTION
from services.registry.adapters.tables import metadata
from services.registry.bootstrap import MIGRATIONS
from services.synthetic.bootstrap import MIGRATIONS as SYNTHETIC
from services.synthetic.consumers import SPECIALISTS
from services.synthetic.consumers import Consumers as SyntheticConsumers
from services.training.consumers import Consumers as TrainingConsumers
from tailor.api.events.v1 import documents_pb2
from tailor.cli.events import message_type
from tailor.errors import InvalidArgument, Reason, TailorError
from tailor.events.envelope import Event
from tailor.events.erased import ERASED
from tailor.events.topics import load_topics
from tailor.sql import transaction
from tests.barrier import MIGRATIONS as ANONYMIZATION
from tests.conftest import migrated
from tests.databases import Databases
from tests.edge_case_messages import odd_messages
from tests.ingestion import Ingestion
from tests.integration.evaluation_house import House, houses
from tests.integration.test_anonymization_handlers import World as AnonymizationWorld
from tests.integration.test_registry import World
from tests.integration.training_service import House as TrainingHouse
from tests.integration.training_service import training_service
from tests.synthetic import World as SyntheticWorld

pytestmark = pytest.mark.integration

EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TOPICS = {
    service: sorted(topic.name for topic in load_topics().values() if service in topic.consumers)
    for service in ("registry", "synthetic", "evaluation")
}


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


@pytest.fixture
def house(databases: Databases) -> Iterator[House]:
    with houses(databases) as make:
        yield make()


@pytest.fixture
def ingestion(database_url: str) -> Iterator[Ingestion]:
    with migrated(database_url, INGESTION) as engine:
        yield Ingestion(engine)


@pytest.fixture
def anonymization(database_url: str) -> Iterator[AnonymizationWorld]:
    with migrated(database_url, ANONYMIZATION) as engine:
        yield AnonymizationWorld(engine)


@pytest.fixture
def training(database_url: str, tmp_path: Path) -> Iterator[TrainingHouse]:
    with training_service(database_url, tmp_path) as house:
        yield house


@pytest.mark.parametrize("topic", TOPICS["registry"])
@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_the_registry(world: World, topic: str, data: Any) -> None:
    message = data.draw(odd_messages(message_type(load_topics()[topic].schema)))
    try:
        world.consumers.topics()[topic](Event(topic, "key", message.SerializeToString()))
    except TailorError:
        return


@pytest.fixture
def synthetic(database_url: str) -> Iterator[SyntheticConsumers]:
    with migrated(database_url, SYNTHETIC) as engine:
        yield SyntheticConsumers(SyntheticWorld(engine).app)


@pytest.mark.parametrize("topic", sorted({*TOPICS["synthetic"]} - {ERASED}))
@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_synthetic(synthetic: SyntheticConsumers, topic: str, data: Any) -> None:
    message = data.draw(odd_messages(message_type(load_topics()[topic].schema)))
    try:
        handlers = synthetic.topics() | {SPECIALISTS: synthetic.specialist}
        handlers[topic](Event(topic, "key", message.SerializeToString()))
    except TailorError:
        return


@pytest.mark.parametrize("topic", ["dataset.built.v1", "adapter.evaluated.v1", SPECIALISTS])
@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_training(training: TrainingHouse, topic: str, data: Any) -> None:
    consumers = TrainingConsumers(training.ports, record_evaluation=lambda message: None)
    message = data.draw(odd_messages(message_type(load_topics()[topic].schema)))
    try:
        {**consumers.topics(), SPECIALISTS: consumers.on_specialist}[topic](
            Event(topic, "key", message.SerializeToString())
        )
    except TailorError:
        return


@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_ingestion(ingestion: Ingestion, data: Any) -> None:
    message = data.draw(odd_messages(documents_pb2.DocumentRejected))
    try:
        ingestion.handle("document.rejected.v1", message.SerializeToString())
    except TailorError:
        return


@pytest.mark.parametrize("topic", sorted({*TOPICS["evaluation"]} - {ERASED}))
@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_evaluation(house: House, topic: str, data: Any) -> None:
    message = data.draw(odd_messages(message_type(load_topics()[topic].schema)))
    handlers = {**house.consumers.topics(), **house.consumers.tables()}
    try:
        handlers[topic](Event(topic, "key", message.SerializeToString()))
    except TailorError:
        return


@EXAMPLES
@given(data=st.data())
def test_no_event_crashes_anonymization(anonymization: AnonymizationWorld, data: Any) -> None:
    message = data.draw(odd_messages(documents_pb2.DocumentIngested))
    try:
        anonymization.consume(message.SerializeToString())
    except TailorError:
        return


def test_every_topic_of_training_is_covered(training: TrainingHouse) -> None:
    read = {topic.name for topic in load_topics().values() if "training" in topic.consumers}
    covered = {*TrainingConsumers(training.ports, record_evaluation=lambda message: None).topics(), SPECIALISTS, ERASED}
    assert read == covered == {"dataset.built.v1", "adapter.evaluated.v1", SPECIALISTS, ERASED}


def test_a_reason_of_a_newer_release_is_carried_through(world: World) -> None:
    message = documents_pb2.DocumentRejected(document_id="doc_1", submission_id="sub_1")
    message.reason, message.stage = 999, 77  # type: ignore[assignment]
    world.consumers.document_rejected(Event("document.rejected.v1", "doc_1", message.SerializeToString()))
    assert world.queries.flow(None).rejected == {"UNKNOWN_999": 1}


def test_a_value_that_does_not_fit_its_column_is_invalid(world: World) -> None:
    table = next(iter(metadata.sorted_tables))
    with pytest.raises(InvalidArgument) as caught, transaction(world.engine) as connection:
        connection.execute(text("SELECT CAST(:value AS integer)"), {"value": f"no number in {table.name}"})
    assert caught.value.reason == Reason.INVALID_VALUE


def test_events_that_expired_count_as_rejected_one_by_one(world: World) -> None:
    for number, count in enumerate((7, -3, 0)):
        message = documents_pb2.DocumentRejected(
            document_id=f"doc_{number}",
            submission_id=f"sub_{number}",
            stage=documents_pb2.STAGE_INGESTION,
            reason=documents_pb2.REJECTION_REASON_EXPIRED,
            expired=documents_pb2.ExpiredEvents(topic="document.submitted.v1", first_offset=3, count=count),
        )
        event = Event("document.rejected.v1", message.document_id, message.SerializeToString())
        world.consumers.document_rejected(event)
        world.consumers.document_rejected(event)
    assert world.queries.flow(None).rejected == {"EXPIRED": 9}
