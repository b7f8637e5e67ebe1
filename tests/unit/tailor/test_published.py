"""Events that claim more than the registry has published are not acted on."""

from collections.abc import Mapping

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.errors import PermissionDenied, Reason
from tailor.events.envelope import Event
from tailor.events.published import SERVING, SPECIALISTS, Newest, PublishedRevisions


class Registry:
    """What the registry published, and how often it was asked."""

    def __init__(self, newest: Mapping[str, Newest]) -> None:
        self.newest = dict(newest)
        self.asked = 0

    def ask(self) -> Mapping[str, Newest]:
        self.asked += 1
        return dict(self.newest)


def serving(generation: int, specialist: str = "reports") -> Event:
    message = models_pb2.SpecialistServing(specialist=specialist, generation=generation)
    return Event(SERVING, specialist, message.SerializeToString(), {}, 0, 7)


def changed(revision: int) -> Event:
    return Event(
        SPECIALISTS, "reports", models_pb2.SpecialistChanged(name="reports", revision=revision).SerializeToString()
    )


def test_a_generation_beyond_the_registrys_own_is_not_acted_on() -> None:
    registry, applied = Registry({"reports": Newest(generation=3)}), list[Event]()
    apply = PublishedRevisions(registry.ask).checked(applied.append)
    apply(serving(3))
    with pytest.raises(PermissionDenied, match="offset 7 of partition 0") as caught:
        apply(serving(2**62))
    assert caught.value.reason is Reason.BEYOND_THE_REGISTRY
    assert applied == [serving(3)]


def test_a_specialist_that_the_registry_does_not_know_is_not_acted_on() -> None:
    registry = Registry({"reports": Newest(generation=3)})
    with pytest.raises(PermissionDenied):
        PublishedRevisions(registry.ask).checked(lambda event: None)(serving(1, "evil-specialist"))


def test_a_revision_beyond_the_registrys_own_is_not_acted_on() -> None:
    registry = Registry({"reports": Newest(revision=2, generation=900)})
    apply = PublishedRevisions(registry.ask).checked(lambda event: None)
    apply(changed(2))
    with pytest.raises(PermissionDenied):
        apply(changed(3))


def test_gaps_and_old_events_are_no_fault_and_cost_no_question() -> None:
    registry, applied = Registry({"reports": Newest(generation=9)}), list[Event]()
    apply = PublishedRevisions(registry.ask).checked(applied.append)
    for generation in (2, 5, 9, 4):
        apply(serving(generation))
    assert len(applied) == 4 and registry.asked == 1


def test_what_the_registry_published_since_is_learned() -> None:
    registry, applied = Registry({"reports": Newest(generation=1)}), list[Event]()
    apply = PublishedRevisions(registry.ask).checked(applied.append)
    apply(serving(1))
    registry.newest["reports"] = Newest(generation=2)
    apply(serving(2))
    assert len(applied) == 2


def test_a_tombstone_claims_nothing() -> None:
    registry, applied = Registry({}), list[Event]()
    PublishedRevisions(registry.ask).checked(applied.append)(Event(SERVING, "reports", None))
    assert len(applied) == 1 and registry.asked == 0
