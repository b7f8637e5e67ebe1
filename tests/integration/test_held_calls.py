"""Four eyes, in PostgreSQL: another key approves, and the call is carried out once, as it was approved."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message
from sqlalchemy import Engine, func, select

from services.registry.adapters.sql import transactions
from services.registry.adapters.tables import outbox as outbox_rows
from services.registry.bootstrap import MIGRATIONS
from services.registry.handlers import keys
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from tailor.api.anonymization.v1.anonymization_pb2 import ReidentifyRequest
from tailor.api.common.v1 import common_pb2
from tailor.api.held.v1 import held_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import FailedPrecondition, NotFound, PermissionDenied, Reason, ResourceExhausted, TailorError
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.held_calls import HELD_CALLS, LIFETIME, MAX_WAITING_PER_KEY, HeldCalls
from tailor.rpc.auth import Caller, set_caller
from tailor.rpc.held_calls import FourEyes, HeldCallServicer
from tailor.sql import transaction
from tests.conftest import migrated

pytestmark = pytest.mark.integration

ROLE = "ROLE_DATA_PROTECTION"
ANNA = Caller("key", "Anna", ROLE, key_id="key_anna")
BEN = Caller("key", "Ben", ROLE, key_id="key_ben")
QUESTION = ReidentifyRequest(entity_type="PERSON", surrogate="Helen Ward", purpose="claim 12 of the insurer")


class World:
    """Held calls with a clock that tests move."""

    def __init__(self, engine: Engine) -> None:
        self.moment = datetime.now(UTC)
        self.engine = engine
        self.held_calls = HeldCalls(engine, now=lambda: self.moment)
        self.four_eyes = FourEyes(self.held_calls, is_on=True)
        self.servicer = HeldCallServicer(self.held_calls)

    def ask(self, caller: Caller, request: Message = QUESTION) -> str:
        """The id of the held call; empty if the call may be carried out."""
        set_caller(caller)
        try:
            self.four_eyes.check("Reidentify", request)
        except FailedPrecondition as held:
            if held.reason is not Reason.SECOND_PERSON_NEEDED:
                raise
            return str(held.metadata["held_call_id"])
        return ""

    def approve(self, caller: Caller, held_call_id: str) -> held_pb2.HeldCall:
        set_caller(caller)
        request = held_pb2.ApproveHeldCallRequest(held_call_id=held_call_id)
        return self.servicer.ApproveHeldCall(request, None).held_call  # type: ignore[arg-type]

    def decline(self, caller: Caller, held_call_id: str) -> held_pb2.HeldCall:
        set_caller(caller)
        request = held_pb2.DeclineHeldCallRequest(held_call_id=held_call_id)
        return self.servicer.DeclineHeldCall(request, None).held_call  # type: ignore[arg-type]

    def repeat(self, caller: Caller, held_call_id: str, **changes: str) -> None:
        """Carry out a held call."""
        request = ReidentifyRequest()
        request.CopyFrom(QUESTION)
        request.MergeFrom(ReidentifyRequest(held_call_id=held_call_id, **changes))
        assert self.ask(caller, request) == ""


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def _refused(reason: Reason, call: Callable[[], object]) -> None:
    with pytest.raises(TailorError) as refused:
        call()
    assert refused.value.reason is reason


def test_a_call_is_carried_out_once_after_another_key_approved_it(world: World) -> None:
    held = world.ask(ANNA)
    assert held.startswith("hld_")
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.repeat(ANNA, held))
    assert world.approve(BEN, held).decided_by == BEN.key_id
    world.repeat(ANNA, held)
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.repeat(ANNA, held))


def test_nobody_approves_their_own_call(world: World) -> None:
    held = world.ask(ANNA)
    with pytest.raises(PermissionDenied, match="OWN_HELD_CALL"):
        world.approve(ANNA, held)
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.repeat(ANNA, held))
    assert world.decline(ANNA, held).state == held_pb2.HELD_CALL_STATE_DECLINED
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.approve(BEN, held))


def test_an_approval_is_for_one_key_and_one_request(world: World) -> None:
    held = world.ask(ANNA)
    world.approve(BEN, held)
    with pytest.raises(NotFound):
        world.repeat(BEN, held)
    _refused(Reason.HELD_CALL_DIFFERS, lambda: world.repeat(ANNA, held, surrogate="Somebody Else"))
    _refused(Reason.UNKNOWN_HELD_CALL, lambda: world.repeat(ANNA, "hld_guess"))
    other = ReidentifyRequest(held_call_id=held)
    other.MergeFrom(QUESTION)
    set_caller(ANNA)
    _refused(Reason.HELD_CALL_DIFFERS, lambda: world.four_eyes.check("Erase", other))
    world.repeat(ANNA, held)


def test_a_held_call_expires_before_and_after_its_approval(world: World) -> None:
    waiting, approved = world.ask(ANNA), world.ask(BEN)
    world.approve(ANNA, approved)
    world.moment += LIFETIME + timedelta(seconds=1)
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.approve(BEN, waiting))
    _refused(Reason.HELD_CALL_CLOSED, lambda: world.repeat(BEN, approved))
    listed = world.servicer.ListHeldCalls(held_pb2.ListHeldCallsRequest(), None)  # type: ignore[arg-type]
    states = {held.held_call_id: held.state for held in listed.held_calls}
    assert states == dict.fromkeys((waiting, approved), held_pb2.HELD_CALL_STATE_EXPIRED)
    assert world.ask(ANNA) not in {waiting, ""}


def test_the_same_call_is_held_once_and_the_number_of_held_calls_is_limited(world: World) -> None:
    assert world.ask(ANNA) == world.ask(ANNA) != world.ask(BEN)
    for number in range(MAX_WAITING_PER_KEY - 1):
        world.ask(ANNA, ReidentifyRequest(entity_type="PERSON", surrogate=f"Helen {number}", purpose="claim 12"))
    with pytest.raises(ResourceExhausted, match="TOO_MANY_HELD_CALLS"):
        world.ask(ANNA, ReidentifyRequest(entity_type="PERSON", surrogate="One More", purpose="claim 12"))
    assert world.ask(BEN)


def test_what_was_held_stays_on_record_with_who_asked_who_decided_and_when(world: World) -> None:
    held = world.ask(ANNA)
    world.approve(BEN, held)
    world.repeat(ANNA, held)
    declined = world.ask(BEN)
    world.decline(ANNA, declined)
    page = world.servicer.ListHeldCalls(held_pb2.ListHeldCallsRequest(page_size=1), None)  # type: ignore[arg-type]
    following = held_pb2.ListHeldCallsRequest(page_size=1, page_token=page.next_page_token)
    last = world.servicer.ListHeldCalls(following, None)  # type: ignore[arg-type]
    (newest,), (oldest,) = page.held_calls, last.held_calls
    assert (newest.held_call_id, newest.state) == (declined, held_pb2.HELD_CALL_STATE_DECLINED)
    assert (oldest.requested_by, oldest.decided_by) == (ANNA.key_id, BEN.key_id)
    assert oldest.HasField("decide_time") and oldest.HasField("use_time")
    assert "claim 12 of the insurer" in oldest.request and not last.next_page_token
    with transaction(world.engine) as connection:
        assert connection.execute(select(func.count()).select_from(HELD_CALLS)).scalar_one() == 2


def test_services_and_installations_without_four_eyes_are_not_held(world: World) -> None:
    set_caller(Caller("service", "ingestion"))
    world.four_eyes.check("Erase", registry_pb2.EraseRequest(document_ids=["doc_1"]))
    set_caller(ANNA)
    FourEyes(world.held_calls, is_on=False).check("Reidentify", QUESTION)


class Registry:
    """The registry's calls under four eyes."""

    def __init__(self, world: World) -> None:
        self.begin = transactions(world.engine, Outbox(world.engine, outbox_rows, MemoryProducer("registry")))
        keys.install_key(self.begin, "a" * 64, "first", ROLE)
        self.servicer = RegistryServicer(
            self.begin,
            Queries(world.engine),
            lambda text, labels: text,
            ("training",),
            world.four_eyes.check,
            check_programme=lambda *_: None,
        )

    def erase(self, caller: Caller, document: str, held_call_id: str = "") -> registry_pb2.Erasure:
        set_caller(caller)
        request = registry_pb2.EraseRequest(document_ids=[document], reason="court-order", held_call_id=held_call_id)
        return self.servicer.Erase(request, None).erasure  # type: ignore[arg-type]

    def create_key(self, caller: Caller, name: str, held_call_id: str = "") -> str:
        set_caller(caller)
        role = common_pb2.ROLE_DATA_PROTECTION
        request = registry_pb2.CreateKeyRequest(name=name, role=role, held_call_id=held_call_id)
        return self.servicer.CreateKey(request, None).secret  # type: ignore[arg-type]


def _held(call: Callable[[], object]) -> str:
    with pytest.raises(FailedPrecondition) as held:
        call()
    assert held.value.reason is Reason.SECOND_PERSON_NEEDED
    return str(held.value.metadata["held_call_id"])


def test_nothing_is_erased_before_a_second_person_approved_it(world: World) -> None:
    registry, document = Registry(world), "doc_" + "7" * 32
    held = _held(lambda: registry.erase(ANNA, document))
    empty = registry.servicer.ListErasures(registry_pb2.ListErasuresRequest(), None)  # type: ignore[arg-type]
    assert not empty.erasures
    world.approve(BEN, held)
    assert list(registry.erase(ANNA, document, held).document_ids) == [document]


def test_a_malformed_erasure_is_refused_and_not_held(world: World) -> None:
    registry = Registry(world)
    _refused(Reason.INVALID_ERASURE, lambda: registry.erase(ANNA, "not-an-id"))
    assert world.held_calls.list(10) == []


def test_the_first_key_makes_a_second_and_then_nobody_makes_an_accomplice_alone(world: World) -> None:
    registry = Registry(world)
    assert registry.create_key(ANNA, "Ben").startswith("tlr_")
    held = _held(lambda: registry.create_key(ANNA, "Anna again"))
    with pytest.raises(PermissionDenied):
        world.approve(ANNA, held)
    world.approve(BEN, held)
    assert registry.create_key(ANNA, "Anna again", held).startswith("tlr_")
