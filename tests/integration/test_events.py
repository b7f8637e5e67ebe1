"""Producing and consuming over a broker."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, PermissionDenied, Reason, Unavailable
from tailor.events.consumer import Consumer
from tailor.events.envelope import Event, decode
from tailor.events.faults import Faults
from tailor.events.memory import MemoryProducer
from tailor.events.producer import KafkaProducer
from tailor.events.table import TableReader
from tailor.settings import ServiceSettings
from tests.conftest import Stores
from tests.real.kinds import StoreKind
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def settings(stores: Stores) -> ServiceSettings:
    # The administrator, because these topics and groups are the tests' own.
    return stores.kafka_admin.model_copy(update={"kafka_group_instance_id": "training-0"})


@pytest.fixture(scope="module")
def producer(settings: ServiceSettings) -> Iterator[KafkaProducer]:
    producer = KafkaProducer.from_settings(settings, "test")
    yield producer
    producer.close()


@pytest.fixture
def topic(settings: ServiceSettings) -> str:
    return _new_topic(settings)


def _new_topic(settings: ServiceSettings) -> str:
    name = f"test.{uuid.uuid4().hex}.v1"
    admin = KafkaAdminClient(**settings.kafka_arguments())
    admin.create_topics([NewTopic(name, 2, 1)])
    admin.close()
    return name


def _run(work: Callable[[threading.Event], None], until: Callable[[], bool], seconds: float = 30) -> None:
    stop, failures = threading.Event(), []

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    deadline = time.monotonic() + seconds * PATIENCE
    while not until() and time.monotonic() < deadline and not failures:
        time.sleep(0.05)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def _consumer(settings: ServiceSettings, topic: str, handler: Callable[[Event], None], group: str = "") -> Consumer:
    return Consumer(
        settings,
        service=group or f"group-{topic}",
        topics={topic: handler},
        producer=MemoryProducer(),
        sleep=lambda _: None,
    )


def test_an_event_arrives_with_its_key_id_and_message(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    producer.send(topic, "run_1", models_pb2.RunFailed(run_id="run_1", reason="CANCELLED"), "evt_1")
    seen: list[Event] = []
    _run(_consumer(settings, topic, seen.append).run, lambda: bool(seen))
    assert (seen[0].key, seen[0].event_id, seen[0].headers["ce_type"]) == ("run_1", "evt_1", topic)
    assert decode(seen[0], models_pb2.RunFailed).reason == "CANCELLED"


def test_the_next_member_continues_after_the_last_handled_event(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    for number in range(5):
        producer.send(topic, f"run_{number}", models_pb2.RunFailed(run_id=f"run_{number}"), f"evt_{number}")
    first: list[Event] = []
    _run(_consumer(settings, topic, first.append).run, lambda: len(first) == 5)
    producer.send(topic, "run_9", models_pb2.RunFailed(run_id="run_9"), "evt_9")
    second: list[Event] = []
    _run(_consumer(settings, topic, second.append).run, lambda: bool(second))
    assert len(first) == 5
    assert [event.key for event in second] == ["run_9"]


def test_a_lone_member_joins_once(
    settings: ServiceSettings, producer: KafkaProducer, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    # A second join, after the partitions became known, may never complete, and then nothing is read.
    caplog.set_level("INFO", "kafka.coordinator.consumer")
    seen: list[float] = []
    producer.send(topic, "run_1", models_pb2.RunFailed(run_id="run_1"), "evt_1")
    consumer = _consumer(settings, topic, lambda _: seen.append(time.monotonic()))
    _run(consumer.run, lambda: bool(seen) and time.monotonic() > seen[0] + 3)
    assert seen
    assert [record.message.startswith("Cooperative rebalance complete") for record in caplog.records].count(True) == 1


def test_members_that_join_and_leave_while_handlers_are_busy_lose_nothing(
    stores: Stores, store_kind: StoreKind
) -> None:
    if store_kind.name == "embedded":
        pytest.skip("the embedded broker can leave members without names waiting for each other (docs/decisions/0006)")
    dynamic = stores.kafka_admin
    topic = _new_topic(dynamic)
    producer = KafkaProducer.from_settings(dynamic, "test")
    expected = {f"evt_{number}" for number in range(40)}
    for number, event_id in enumerate(sorted(expected)):
        producer.send(topic, f"run_{number}", models_pb2.RunFailed(run_id=f"run_{number}"), event_id)
    handled: list[str] = []

    def slow(event: Event) -> None:
        time.sleep(0.4)
        handled.append(event.event_id)

    late = threading.Event()

    def join_and_leave(stop: threading.Event) -> None:
        member = threading.Thread(target=_consumer(dynamic, topic, slow).run, args=(stop,))
        member.start()
        time.sleep(2)
        second = threading.Thread(target=_consumer(dynamic, topic, slow).run, args=(late,))
        second.start()
        time.sleep(4)
        late.set()
        second.join(60)
        member.join(60)

    _run(join_and_leave, lambda: set(handled) == expected, 60)
    assert set(handled) == expected
    assert len(handled) <= len(expected) + 4
    print(f"{len(handled)} handlings of {len(expected)} events over two rebalances")
    producer.close()


def test_redelivers_an_event_whose_handler_crashed(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    producer.send(topic, "run_1", models_pb2.RunFailed(run_id="run_1"), "evt_1")

    def crash(event: Event) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        _run(_consumer(settings, topic, crash).run, lambda: False)
    seen: list[Event] = []
    _run(_consumer(settings, topic, seen.append).run, lambda: bool(seen))
    assert seen[0].event_id == "evt_1"


def test_a_poison_event_does_not_block_the_next_one(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    seen: list[str] = []

    def handler(event: Event) -> None:
        if event.event_id == "evt_bad":
            raise InvalidArgument(Reason.INVALID_REQUEST, "wrong")
        seen.append(event.event_id)

    for event_id in ("evt_bad", "evt_good"):
        producer.send(topic, "same", models_pb2.RunFailed(), event_id)
    letters = MemoryProducer()
    consumer = Consumer(settings, service=f"group-{topic}", topics={topic: handler}, producer=letters)
    _run(consumer.run, lambda: bool(seen))
    assert seen == ["evt_good"]
    assert len(letters.sent) == 1


def test_a_handler_may_take_longer_than_the_maximum_time_between_polls(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    producer.send(topic, "slow", models_pb2.RunFailed(), "evt_slow")
    done: list[str] = []

    def handler(event: Event) -> None:
        time.sleep(2)
        done.append(event.event_id)

    _run(_consumer(settings, topic, handler).run, lambda: bool(done))
    assert done == ["evt_slow"]


def test_every_replica_reads_a_table_from_its_beginning(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    for generation in (1, 2):
        producer.send(
            topic, "s", models_pb2.SpecialistServing(specialist="s", generation=generation), f"evt_{generation}"
        )
    for _ in range(2):
        seen: list[Event] = []
        reader = TableReader(settings, topic, seen.append)
        _run(reader.run, reader.caught_up.is_set)
        assert [decode(event, models_pb2.SpecialistServing).generation for event in seen] == [1, 2]


def test_an_event_that_a_table_refuses_is_skipped_and_noticed(
    settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    for generation in (1, 2**62, 2):
        message = models_pb2.SpecialistServing(specialist="s", generation=generation)
        producer.send(topic, "s", message, f"evt_{generation}")
    faults, applied = Faults(), list[int]()

    def apply(event: Event) -> None:
        generation = decode(event, models_pb2.SpecialistServing).generation
        if generation > 2:
            raise PermissionDenied(Reason.BEYOND_THE_REGISTRY, "The registry never published this generation.")
        applied.append(generation)

    reader = TableReader(settings, topic, apply, faults)
    _run(reader.run, reader.caught_up.is_set)
    assert applied == [1, 2]
    (fault,) = faults.all()
    assert (fault.part, fault.reason, fault.waits) == (f"an event of {topic}", "BEYOND_THE_REGISTRY", False)


def test_an_empty_table_is_caught_up_at_once(settings: ServiceSettings, topic: str) -> None:
    reader = TableReader(settings, topic, lambda event: None)
    _run(reader.run, reader.caught_up.is_set)
    assert reader.caught_up.is_set()


def test_an_absent_broker_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        KafkaProducer.from_settings(ServiceSettings(kafka_bootstrap_servers="127.0.0.1:1"), "test")


# If nothing is sent after the loss, the resent events are the first ones that the restarted broker receives.
@pytest.mark.parametrize("after", [10, 0])
def test_a_killed_embedded_broker_loses_nothing_that_it_acknowledged(
    tmp_path_factory: pytest.TempPathFactory, after: int
) -> None:
    import signal

    from tailor.local import stack
    from tailor.local.layout import BROKER

    root = tmp_path_factory.mktemp("killed")
    running = stack.up(root, only=(BROKER,))
    try:
        snapshot = running.wait_ready(600)
        address = snapshot.ports.address("broker")
        settings = ServiceSettings(
            kafka_bootstrap_servers=address, kafka_client_module="tailor.local.noida_workarounds"
        )
        producer = KafkaProducer.from_settings(settings, "test")
        seen: set[str] = set()
        consumer = Consumer(
            settings,
            service="group",
            topics={"run.failed.v1": lambda event: seen.add(event.key)},
            producer=MemoryProducer(),
        )
        process = snapshot.components[BROKER].process
        assert process is not None

        def publish(numbers: range) -> None:
            for number in numbers:
                for _ in range(100):
                    try:
                        producer.send("run.failed.v1", f"run_{number}", models_pb2.RunFailed(), f"evt_{number}")
                        break
                    except Unavailable:
                        time.sleep(0.2)

        def work(stop: threading.Event) -> None:
            publish(range(50))
            os.kill(process.pid, signal.SIGKILL)
            publish(range(50, 50 + after))
            consumer.run(stop)

        _run(work, lambda: len(seen) == 50 + after, 60)
        producer.close()
        assert len(seen) == 50 + after
    finally:
        stack.down(root)


def test_a_killed_member_rejoins_its_group_at_once(
    stores: Stores, settings: ServiceSettings, producer: KafkaProducer, topic: str
) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from tailor.events.consumer import Consumer; from tailor.events.memory import MemoryProducer; "
    )
    program += "from tailor.settings import KafkaSettings; import threading; settings = KafkaSettings(); "
    program += "handler = lambda event: print('handled', flush=True); "
    program += "Consumer(settings, service=sys.argv[1], topics={sys.argv[1]: handler}, producer=MemoryProducer()).run(threading.Event())"
    producer.send(topic, "first", models_pb2.RunFailed(), "evt_first")
    command = [sys.executable, "-c", program, topic]
    variables = stores.plan.stores.kafka_admin() or {}
    environment = os.environ | variables | {"TAILOR_KAFKA_GROUP_INSTANCE_ID": "group-0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as member:
        assert member.stdout is not None
        assert "handled" in member.stdout.readline()
        member.kill()
    for number in range(8):
        producer.send(topic, f"key_{number}", models_pb2.RunFailed(), f"evt_{number}")
    expected, seen = {f"evt_{number}" for number in range(8)}, set[str]()
    again = settings.model_copy(update={"kafka_group_instance_id": "group-0"})
    # The killed member may not have committed its event, which is then redelivered too.
    _run(_consumer(again, topic, lambda event: seen.add(event.event_id), topic).run, lambda: expected <= seen, 20)
    assert expected <= seen
