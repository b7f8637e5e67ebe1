"""An adapter on a share of the callers: forward, back, or ended by hand; over PostgreSQL and two inference replicas."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Engine, func, select

from services.registry import canaries, erasures, promotions
from services.registry.adapters import tables
from services.registry.bootstrap import MIGRATIONS
from services.registry.comparing import CanaryRules
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tests.conftest import migrated
from tests.integration.canary_house import KEYS, NAME, RULES, House, Replica

pytestmark = pytest.mark.integration

RUNNING, FORWARD, BACK, ENDED = (
    registry_pb2.CANARY_STATE_RUNNING,
    registry_pb2.CANARY_STATE_FORWARD,
    registry_pb2.CANARY_STATE_BACK,
    registry_pb2.CANARY_STATE_ENDED,
)

LOST = Unavailable(Reason("EVALUATION_UNAVAILABLE"), "It does not answer.")


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


@pytest.fixture
def house(database: Engine) -> House:
    """`a` serves, generation 3; `b` passed the gate beside it and was rolled back, so that it can be tried."""
    found = House(database)
    for digest in ("a", "b"):
        found.train(digest, dataset=f"of-{digest}")
    promotions.rollback(found.begin, NAME, 2)
    return found


@pytest.fixture
def replicas() -> tuple[Replica, Replica]:
    return Replica("inference-0"), Replica("inference-1")


def ask_all(house: House, *replicas: Replica) -> dict[str, set[str]]:
    """Every key asks each replica twice; the adapters that each of them got."""
    house.reaches(*replicas)
    got = {key.key_id: {replica.ask(key) for replica in replicas for _ in range(2)} for key in KEYS}
    house.hears(*replicas)
    return got


def test_a_share_of_the_callers_gets_it_always_the_same_ones_until_it_goes_forward(
    house: House, database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    started = house.start("b")
    assert (started.generation, started.adapter_digest) == (4, "a")
    got = ask_all(house, *replicas)
    assert {frozenset(adapters) for adapters in got.values()} == {frozenset("a"), frozenset("b")}
    tried = sum(adapters == {"b"} for adapters in got.values())
    found = house.canary()
    assert (found.state, found.canary.callers, found.canary.calls) == (RUNNING, tried, 4 * tried)
    assert (found.incumbent.callers, found.incumbent.calls) == (40 - tried, 4 * (40 - tried))
    assert found.canary.first_token_seconds == pytest.approx(0.1)
    # Another registry over the same database, as after a restart, goes on from there.
    again = House(database)
    again.look()
    serving = again.serving()
    assert (serving.generation, serving.adapter_digest, serving.previous_digest, serving.canary) == (5, "b", "a", None)
    found = again.canary()
    assert (found.state, found.canary.calls) == (FORWARD, 4 * tried)
    assert f"0 of {4 * tried} calls failed" in found.reason
    with again.begin() as tx:
        assert tx.running_canary(NAME) is None
    assert {frozenset(adapters) for adapters in ask_all(again, *replicas).values()} == {frozenset("b")}
    with database.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.canary_calls)) == 0


def test_errors_that_pile_up_take_it_back_before_its_calls_are_complete(
    house: House, replicas: tuple[Replica, Replica]
) -> None:
    house.start("b", replace(RULES, min_calls=10_000))
    for replica in replicas:
        replica.engine.broken.add("b")
    ask_all(house, *replicas)
    house.look()
    assert (house.serving().generation, house.serving().adapter_digest, house.serving().canary) == (5, "a", None)
    found = house.canary()
    assert (found.state, found.canary.errors) == (BACK, found.canary.calls)
    assert "calls failed beside 0 of" in found.reason
    assert {frozenset(adapters) for adapters in ask_all(house, *replicas).values()} == {frozenset("a")}


def test_an_adapter_that_cannot_be_had_counts_as_failed(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(RULES, min_calls=10_000))
    house.reaches(*replicas)
    for replica in replicas:
        replica.inference.models.cache.drop("b")
        replica.world.library.bad.add("b")
    ask_all(house, *replicas)
    house.look()
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")


def test_one_that_answers_too_slowly_goes_back(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b")
    for replica in replicas:
        replica.engine.seconds["b"] = 0.2
    ask_all(house, *replicas)
    house.look()
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")
    assert "first token after 0.200 s beside 0.100 s" in house.canary().reason


def test_too_few_calls_take_it_back_when_its_time_is_up(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(RULES, min_calls=1_000))
    ask_all(house, *replicas)
    house.look(later=590)
    assert house.canary().state == RUNNING
    house.look(later=601)
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")
    assert "undecided after 600 s" in house.canary().reason


def test_a_replica_that_refuses_it_takes_it_back(house: House, replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    house.start("b")
    second.world.library.bad.add("b")
    house.reaches(first, second)
    house.hears(first, second)
    assert (house.canary().state, house.canary().reason) == (BACK, "inference-1 refuses it: WRONG_BASE")
    house.reaches(first, second)
    assert [replica.ask(KEYS[0]) for replica in replicas] == ["a", "a"]
    # What was refused of another generation takes nothing back.
    house.start("b")
    house.hears(first, second)
    assert house.canary().state == RUNNING


def test_two_registries_decide_once(house: House, database: Engine, replicas: tuple[Replica, Replica]) -> None:
    house.start("b")
    ask_all(house, *replicas)
    houses = [House(database) for _ in range(4)]
    with ThreadPoolExecutor(len(houses)) as pool:
        list(pool.map(lambda one: one.look(), houses))
    assert (house.serving().generation, house.serving().adapter_digest) == (5, "b")
    assert len(house.decided()) == 5


@pytest.mark.parametrize(
    ("by_hand", "state", "serves", "reason"),
    [
        (lambda house: canaries.stop_canary(house.begin, NAME, 4), BACK, "a", "stopped by hand"),
        (lambda house: promotions.promote(house.begin, NAME, "b", 4), ENDED, "b", "promoted by hand"),
        (lambda house: promotions.rollback(house.begin, NAME, 4), ENDED, "b", "rolled back"),
    ],
)
def test_a_decision_by_hand_ends_it(
    house: House, by_hand: Callable[[House], object], state: int, serves: str, reason: str
) -> None:
    house.start("b")
    by_hand(house)
    found = house.canary()
    assert (found.state, house.serving().adapter_digest, house.serving().canary) == (state, serves, None)
    assert reason in found.reason
    assert found.HasField("end_time")


def test_taking_a_canary_back_leaves_what_a_rollback_goes_to(house: House) -> None:
    before = house.serving().previous_digest
    house.start("b")
    canaries.stop_canary(house.begin, NAME, 4)
    assert house.serving().previous_digest == before == "b"


def test_erasing_what_it_learned_from_ends_it(house: House) -> None:
    house.start("b")
    erasures.erase(house.begin, (), erasures.Request("ers_1", ["doc_" + "0" * 32], "subject-request"))
    assert house.canary().state == RUNNING
    with house.begin() as tx:
        erasures.taint(tx, {"of-b"}, "ers_1")
    assert (house.canary().state, house.serving().adapter_digest, house.serving().canary) == (ENDED, "a", None)
    assert "erased" in house.canary().reason


def test_with_a_policy_what_passes_the_gate_is_tried_first_and_the_next_one_waits(
    database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    house = House(database, RULES)
    house.train("a")
    # Nobody calls a name that means nothing: there is nothing to compare the first adapter with.
    assert (house.serving().generation, house.serving().adapter_digest) == (1, "a")
    house.train("b")
    assert house.serving().canary is not None
    assert (house.serving().generation, house.serving().adapter_digest, house.canary().policy.percent) == (2, "a", 30)
    house.train("c")
    house.train("d", rouge=0.0)
    assert house.serving().generation == 2
    house.look()
    assert house.evaluator.asked == []
    ask_all(house, *replicas)
    house.evaluator.fails = LOST
    with pytest.raises(Unavailable):
        house.look()
    assert house.serving().adapter_digest == "b"
    house.evaluator.fails = None
    house.look()
    house.look()
    assert [digest for digest, _ in house.evaluator.asked] == ["c"]
    house.evaluate("c")
    assert (house.serving().adapter_digest, house.canary().adapter_digest, house.canary().state) == ("b", "c", RUNNING)


def test_an_evaluation_from_before_a_canary_holds_while_the_same_adapter_serves(house: House) -> None:
    house.train("c", rouge=0.0)
    house.start("b")
    canaries.stop_canary(house.begin, NAME, 4)
    assert house.evaluator.asked == []
    house.start("b")
    assert house.canary().generation == 6


def test_an_adapter_that_cannot_be_measured_any_more_holds_up_nothing(
    database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    house = House(database, RULES)
    for digest in ("a", "b", "c"):
        house.train(digest)
    ask_all(house, *replicas)
    house.evaluator.fails = NotFound(Reason.NO_DATASET, "It was erased.")
    house.look()
    assert house.serving().adapter_digest == "b"
    house.evaluator.fails = None
    house.look()
    assert house.evaluator.asked == []


class Looks(threading.Event):
    """Lets a watch look so often, without a pause."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_lost_evaluation_only_delays_the_watch(database: Engine, replicas: tuple[Replica, Replica]) -> None:
    house = House(database, RULES)
    for digest in ("a", "b", "c"):
        house.train(digest)
    ask_all(house, *replicas)
    house.evaluator.fails = LOST
    house.watch.run(Looks(2))
    assert (house.serving().adapter_digest, house.evaluator.asked) == ("b", [])
    house.evaluator.fails = None
    house.watch.run(Looks(1))
    assert [digest for digest, _ in house.evaluator.asked] == ["c"]


def test_only_what_passed_beside_what_serves_can_be_tried(house: House) -> None:
    def refused(digest: str, rules: CanaryRules = RULES) -> str:
        with pytest.raises((FailedPrecondition, InvalidArgument)) as caught:
            house.start(digest, rules)
        return caught.value.reason

    house.train("poor", rouge=0.0)
    assert refused("poor") == "GATE_NOT_MET"
    assert refused("a") == "SERVES_ALREADY"
    assert refused("b", replace(RULES, percent=100)) == "INVALID_CANARY"
    with pytest.raises(Aborted):
        canaries.start_canary(house.begin, NAME, "b", 2, lambda rules: rules)
    with pytest.raises(FailedPrecondition):
        canaries.stop_canary(house.begin, NAME, 3)
    house.start("b")
    assert refused("b") == "CANARY_RUNS"
    promotions.rollback(house.begin, NAME, 4)
    # `b` serves now, and `a` was measured beside nothing.
    assert refused("a") == "INCUMBENT_MOVED"


def test_an_adapter_can_be_tried_beside_the_base(database: Engine) -> None:
    house = House(database)
    house.train("a")
    promotions.rollback(house.begin, NAME, 1)
    assert house.start("a").canary is not None
