"""Strings that are replaced in many documents: counted, shown to data protection, allowed in the policy, and whole after a replay.

With the real language model, a real vault and PostgreSQL.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

from services.anonymization.domain import DocumentText
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.review.replaced_domain import MAX_PLACES
from tailor.api.anonymization.v1 import replaced_pb2 as pb
from tailor.api.anonymization.v1.replaced_pb2_grpc import ReplacedServiceStub
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tailor.rpc.channel import wire_errors
from tailor.values import Labels
from tests.barrier import MIGRATIONS, channel
from tests.conftest import migrated
from tests.policy_house import PolicyHouse
from tests.unit.anonymization.fakes import INGESTED

pytestmark = pytest.mark.integration

MANUAL = "Restart the pump.\n\nMs Okafor describes valve {0}. The chapter by Ms Okafor ends here."
MEMO = "Helen Ward signed the lease."
DEPARTMENTS = ("risk", "audit", "people")


class World(PolicyHouse):
    """The barrier, and the service of replaced strings on a port."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.server = self.serve()

    def publish(self, number: int, body: str, department: str = "", sequence: int = 1) -> None:
        """A document passes the barrier, as by its event."""
        labels = Labels("wiki", department, "")
        ingested = replace(INGESTED, document_id=f"doc_{number}", sequence=sequence, labels=labels)
        self.pass_text(DocumentText(body), ingested)

    def publish_manuals(self, documents: int = 6) -> None:
        for number in range(documents):
            self.publish(number, MANUAL.format(number), DEPARTMENTS[number % 3])
        self.publish(99, MEMO, "risk")

    def text_of(self, number: int) -> str:
        (passed,) = self.ledger.newest([f"doc_{number}"]).values()
        return self.corpus.read(passed.text).text

    def call(self, name: str, request: Any, role: str = "DATA_PROTECTION") -> Any:
        with wire_errors("anonymization"):
            return getattr(ReplacedServiceStub(channel(self.server, role)), name)(request, timeout=60)

    def strings(self, role: str = "DATA_PROTECTION") -> list[pb.ReplacedString]:
        return list(self.call("ListReplaced", pb.ListReplacedRequest(), role).strings)

    def see(self, item: pb.ReplacedString, role: str = "DATA_PROTECTION", **more: Any) -> pb.GetReplacedResponse:
        request = pb.GetReplacedRequest(entity_type=item.entity_type, surrogate=item.surrogate.upper(), **more)
        answer: pb.GetReplacedResponse = self.call("GetReplaced", request, role)
        return answer

    def decide(
        self, item: pb.ReplacedString, decision: "pb.ReplacedDecision.ValueType", role: str = "DATA_PROTECTION"
    ) -> Any:
        request = pb.DecideReplacedRequest(entity_type=item.entity_type, surrogate=item.surrogate, decision=decision)
        return self.call("DecideReplaced", request, role)

    def measure(self, *numbers: int) -> pb.MeasureOverRedactionResponse:
        stub = ReplacedServiceStub(channel(self.server, "synthetic"))
        ids = [f"doc_{number}" for number in numbers]
        messages = (pb.MeasureOverRedactionRequest(document_ids=[key]) for key in ids)
        with wire_errors("anonymization"):
            answer: pb.MeasureOverRedactionResponse = stub.MeasureOverRedaction(messages)
        return answer

    def purposes(self) -> list[tuple[str, str]]:
        return [(caller, purpose) for caller, _, _, purpose in self.audited()]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine)
        yield world
        world.server.stop(0)


def test_a_string_in_many_documents_of_many_departments_is_listed_without_its_value(world: World) -> None:
    world.publish_manuals(4)
    assert world.strings() == []
    world.publish_manuals(6)
    (item,) = world.strings("ENGINEER")
    assert (item.entity_type, item.times, item.documents, item.departments, item.sources) == ("PERSON", 12, 6, 3, 1)
    assert "okafor" not in item.surrogate and item.surrogate in world.text_of(0).lower()
    answer = world.call("ListReplaced", pb.ListReplacedRequest(page_size=1))
    assert (answer.documents, answer.min_documents, answer.next_page_token) == (7, 5, "")


def test_a_redelivery_counts_once_a_new_version_replaces_and_an_erasure_removes(world: World) -> None:
    world.publish_manuals()
    world.publish_manuals()
    assert world.strings()[0].times == 12
    world.publish(0, "Ms Okafor left.", "risk", sequence=2)
    assert world.strings()[0].times == 11
    world.barrier.recorder.forget("doc_0")
    assert (world.strings()[0].times, world.strings()[0].documents) == (10, 5)
    world.barrier.recorder.forget("doc_1")
    assert world.strings() == []


def test_documents_of_two_departments_say_nothing_of_somebody_with_a_full_name(world: World) -> None:
    for number in range(8):
        world.publish(number, MANUAL.format(number), DEPARTMENTS[number % 2])
    world.publish(8, "Ngozi Okafor leaves.", "risk")
    assert world.strings() == [] and world.measure(*range(9)).replacements == 0


def test_a_word_that_is_often_a_person_and_never_has_a_full_name_counts_and_is_shown_from_five_documents_on(
    world: World,
) -> None:
    for number in range(4):
        world.publish(number, MANUAL.format(number), "risk")
    assert world.strings() == [] and world.measure(*range(4)).replacements == 8
    world.publish(4, MANUAL.format(4), "risk")
    (item,) = world.strings()
    assert (item.times, item.departments) == (10, 1) and world.see(item).value == "Okafor"


def test_colleagues_whom_all_departments_name_in_full_are_not_listed(world: World) -> None:
    for number in range(8):
        world.publish(number, f"Lukas Brandt ({number}) wrote to lukas.brandt@harrow.com.", DEPARTMENTS[number % 3])
    assert "Brandt" not in world.text_of(0) and world.strings() == []


def test_data_protection_sees_the_string_and_ten_places_and_it_is_recorded(world: World) -> None:
    world.publish_manuals(12)
    (item,) = world.strings()
    seen = world.see(item)
    assert seen.value == "Okafor" and len(seen.places) == MAX_PLACES
    assert len({place.document_id for place in seen.places}) == MAX_PLACES
    assert {place.department for place in seen.places[:3]} == set(DEPARTMENTS)
    assert {place.text[place.start : place.end].lower() for place in seen.places} == {item.surrogate}
    assert all("Okafor" not in place.text for place in seen.places)
    assert world.purposes() == [("key_data_protection", "sees the places of a string that many documents have")]
    assert not world.see(item, without_places=True).places
    for role in ("ENGINEER", "OPERATOR", "CALLER", "EXPERT"):
        with pytest.raises(PermissionDenied):
            world.see(item, role)
        with pytest.raises(PermissionDenied):
            world.decide(item, pb.REPLACED_DECISION_ALLOWED, role)


def test_nobody_is_reidentified_whom_few_documents_name(world: World) -> None:
    world.publish_manuals()
    ward = world.text_of(99).split(" signed")[0]
    with pytest.raises(NotFound, match="UNKNOWN_REPLACED"):
        world.see(pb.ReplacedString(entity_type="PERSON", surrogate=ward))
    assert world.purposes() == []


def test_what_is_allowed_is_in_the_policy_and_stays_whole_when_its_documents_pass_again(world: World) -> None:
    world.publish_manuals()
    (item,) = world.strings()
    with pytest.raises(FailedPrecondition, match="PLACES_NOT_SEEN"):
        world.decide(item, pb.REPLACED_DECISION_ALLOWED)
    world.see(item, without_places=True)
    with pytest.raises(FailedPrecondition, match="PLACES_NOT_SEEN"):
        world.decide(item, pb.REPLACED_DECISION_ALLOWED)
    world.see(item)
    decided = world.decide(item, pb.REPLACED_DECISION_ALLOWED)
    assert (decided.policy.generation, decided.policy.installed_by) == (2, "key_data_protection")
    assert decided.outdated_documents == 7 and decided.policy.policy_digest != load_policy().digest
    assert "Okafor" in world.current.policy.allow_terms
    assert ("key_data_protection", "allows a string that many documents have") in world.purposes()
    assert world.decide(item, pb.REPLACED_DECISION_ALLOWED).policy.generation == 2
    (listed,) = world.strings("OPERATOR")
    assert (listed.decision, listed.decided_by) == (pb.REPLACED_DECISION_ALLOWED, "key_data_protection")
    assert world.measure(0, 1, 99).replacements == 4
    for number in range(6):
        world.publish(number, MANUAL.format(number), DEPARTMENTS[number % 3], sequence=2)
    assert world.strings() == [] and world.text_of(3) == MANUAL.format(3)
    assert world.measure(0, 1, 99).replacements == 0


def test_over_redaction_counts_what_is_listed_and_not_what_was_kept(world: World) -> None:
    world.publish_manuals()
    measured = world.measure(0, 1, 99, 1000)
    assert (measured.replacements, measured.words, measured.documents) == (4, 35, 3)
    (item,) = world.strings()
    world.see(item)
    world.decide(item, pb.REPLACED_DECISION_KEPT)
    assert world.measure(0, 1, 99).replacements == 0
    assert world.strings()[0].decision == pb.REPLACED_DECISION_KEPT
    assert world.current.look().generation == 1
    with pytest.raises(InvalidArgument):
        world.decide(item, pb.REPLACED_DECISION_UNSPECIFIED)


def test_no_table_but_the_vault_knows_the_value(world: World) -> None:
    world.publish_manuals()
    (item,) = world.strings()
    world.see(item)
    world.decide(item, pb.REPLACED_DECISION_ALLOWED)
    names = ("review_documents", "review_replaced", "review_replaced_decisions", "audit", "processed", "policies")
    with world.engine.connect() as connection:
        rows = [str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in names]
    assert all("okafor" not in stored.lower() for stored in rows)
