"""Events that inference reads and publishes."""

from collections.abc import Callable
from functools import partial

from services.inference.adapters.events import SEEN, SERVED, Presence, ReportPublisher
from services.inference.consumers import SERVING, SPECIALISTS, ServingConsumer, SpecialistConsumer
from services.inference.definitions import Definitions
from services.inference.deployments import Deployments
from services.inference.domain import ServingReport
from services.inference.routing import describe_replica
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.values import Labels
from tests.unit.inference.fakes import apply_serving, make_world, served


def now(what: str, work: Callable[[], None]) -> None:
    del what
    work()


def serving(**fields: object) -> Event:
    message = models_pb2.SpecialistServing(specialist="reports", generation=1, adapter_digest="a", base="tiny")
    for name, value in fields.items():
        setattr(message, name, value)
    return Event(SERVING, "reports", message.SerializeToString())


def test_applies_a_serving_event_and_removes_the_name_on_a_tombstone() -> None:
    world = make_world()
    consumer = ServingConsumer(world.models, Deployments(), world.published.report, now)
    consumer.apply(serving(system_prompt="House style.", dataset_digest="d"))
    entry = world.models.table.get("reports")
    assert entry is not None
    assert (entry.generation, entry.adapter_digest, entry.system_prompt, entry.dataset_digest) == (
        1,
        "a",
        "House style.",
        "d",
    )
    consumer.apply(Event(SERVING, "reports", None))
    assert world.models.table.get("reports") is None


def test_ignores_the_specialists_of_other_bases() -> None:
    world = make_world()
    ServingConsumer(world.models, Deployments(), world.published.report, now).apply(serving(base="other"))
    assert world.models.table.all() == []
    assert world.published.reports == []


def test_a_specialist_that_moved_to_another_base_is_served_again_when_it_returns() -> None:
    world = make_world()
    consumer = ServingConsumer(world.models, Deployments(), world.published.report, now)
    consumer.apply(serving())
    consumer.apply(serving(generation=2, base="other"))
    assert world.models.table.find_moved("reports") is None
    world.models.table.hand_over("reports")
    assert world.models.table.find_moved("reports") is not None
    consumer.apply(serving(generation=3))
    assert [entry.generation for entry in world.models.table.all()] == [3]


def test_publishes_what_it_serves_and_reasons_for_refusals() -> None:
    producer = MemoryProducer()
    events = ReportPublisher(producer, "inference-0")
    events.publish(ServingReport(served("reports", 1, "a")))
    events.publish(ServingReport(served("reports", 2, "b"), "WRONG_BASE"))
    events.publish(ServingReport(served("reports", 2, "b"), "WRONG_BASE"))
    messages = producer.messages(SERVED)
    assert len(messages) == 2
    first, second = messages
    assert isinstance(first, models_pb2.AdapterServed) and isinstance(second, models_pb2.AdapterServed)
    assert (first.serving, first.reason, first.replica) == (True, "", "inference-0")
    assert (second.serving, second.reason, second.generation) == (False, "WRONG_BASE", 2)


def test_publishes_presence_and_that_it_leaves() -> None:
    producer = MemoryProducer()
    world = make_world()
    apply_serving(world, served("reports", 2, "a"))
    presence = Presence(producer, partial(describe_replica, world.models, "inference-0", "10.0.0.7:50051"))
    presence.refresh()
    presence.publish()
    presence.refresh()
    presence.publish(leaving=True)
    sent = [message for message in producer.messages(SEEN) if isinstance(message, models_pb2.ReplicaSeen)]
    assert [(message.replica, message.base, message.leaving) for message in sent] == [
        ("inference-0", "tiny", False),
        ("inference-0", "tiny", False),
        ("inference-0", "tiny", True),
    ]
    assert (sent[0].address, dict(sent[0].generations)) == ("10.0.0.7:50051", {"reports": 2})
    assert sent[0].create_time.ToNanoseconds() <= sent[2].create_time.ToNanoseconds()


def test_presence_survives_a_lost_broker() -> None:
    producer = MemoryProducer()
    producer.down = True
    Presence(producer, partial(describe_replica, make_world().models, "inference-0", "")).publish()
    assert producer.sent == []


def changed(*, keep_drafts: bool = False, private: bool = False, sources: tuple[str, ...] = ("wiki",)) -> Event:
    selection = models_pb2.Selection(sources=sources, departments=["risk"])
    message = models_pb2.SpecialistChanged(
        name="reports", keep_drafts=keep_drafts, private_prompts=private, selection=selection
    )
    return Event(SPECIALISTS, "reports", message.SerializeToString())


def test_knows_whose_drafts_are_kept_and_by_which_labels() -> None:
    definitions = Definitions()
    consumer = SpecialistConsumer(definitions)
    consumer.apply(changed(keep_drafts=False))
    assert definitions.draft_labels("reports") is None
    consumer.apply(changed(keep_drafts=True))
    assert definitions.draft_labels("reports") == Labels("wiki", "risk")
    consumer.apply(changed(keep_drafts=True, sources=("wiki", "mail")))
    assert definitions.draft_labels("reports") == Labels(department="risk")
    consumer.apply(changed(keep_drafts=False))
    assert definitions.draft_labels("reports") is None


def test_knows_whose_prompts_are_private_even_before_the_definition_arrives() -> None:
    definitions, world = Definitions(), make_world()
    consumer = SpecialistConsumer(definitions)
    ServingConsumer(world.models, Deployments(), world.published.report, now).apply(serving(private_prompts=True))
    early = world.models.table.get("reports")
    assert early is not None
    assert definitions.prompt_labels(early) == Labels()
    assert definitions.prompt_labels(served("reports", 1)) is None
    consumer.apply(changed(private=True))
    assert definitions.prompt_labels(early) == definitions.prompt_labels(served("reports", 1)) == Labels("wiki", "risk")
    consumer.apply(changed(private=False))
    assert definitions.prompt_labels(early) is None
    consumer.apply(Event(SPECIALISTS, "reports", None))
    assert definitions.prompt_labels(early) == Labels()


def test_a_deleted_specialist_is_no_longer_served_and_older_generations_do_not_return() -> None:
    world = make_world()
    consumer = ServingConsumer(world.models, Deployments(), world.published.report, now)
    consumer.apply(serving())
    consumer.apply(serving(generation=2, ended=True, adapter_digest="", base=""))
    consumer.apply(serving())
    assert world.models.table.all() == []
    consumer.apply(serving(generation=3))
    assert [entry.generation for entry in world.models.table.all()] == [3]


def test_the_definition_of_a_deleted_specialist_is_forgotten() -> None:
    definitions = Definitions()
    message = models_pb2.SpecialistChanged(name="reports", revision=1, keep_drafts=True)
    SpecialistConsumer(definitions).apply(Event(SPECIALISTS, "reports", message.SerializeToString()))
    assert definitions.draft_labels("reports") is not None
    message.deleted = True
    SpecialistConsumer(definitions).apply(Event(SPECIALISTS, "reports", message.SerializeToString()))
    assert definitions.draft_labels("reports") is None


def test_an_older_definition_is_ignored() -> None:
    definitions = Definitions()
    consumer = SpecialistConsumer(definitions)
    for revision, private in ((7, True), (6, False)):
        message = models_pb2.SpecialistChanged(name="reports", revision=revision, private_prompts=private)
        consumer.apply(Event(SPECIALISTS, "reports", message.SerializeToString()))
    assert definitions.prompt_labels(served("reports", 1, "a")) is not None
