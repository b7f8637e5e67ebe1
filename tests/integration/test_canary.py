"""Canaries: promoted, withdrawn, or ended by an operator; over PostgreSQL and two inference replicas."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select

from services.registry.adapters import tables
from services.registry.bootstrap import MIGRATIONS
from services.registry.domain import CanaryPolicy, ErasureRequest
from services.registry.domain import Replica as SeenReplica
from services.registry.handlers import canaries, erasures, facts, promotions
from services.registry.handlers.outcomes import store_outcome
from services.registry.outcome_domain import DraftOutcome, FinalText
from tailor.api.registry.v1 import registry_pb2
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, Unavailable
from tests.conftest import migrated
from tests.integration.canary_house import KEYS, NAME, POLICY, House, Replica
from tests.jobs import end_leases

pytestmark = pytest.mark.integration

RUNNING, FORWARD, BACK, ENDED = (
    registry_pb2.CANARY_STATE_RUNNING,
    registry_pb2.CANARY_STATE_FORWARD,
    registry_pb2.CANARY_STATE_BACK,
    registry_pb2.CANARY_STATE_ENDED,
)

DOWN = Unavailable(Reason("EVALUATION_UNAVAILABLE"), "It does not answer.")


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


@pytest.fixture
def house(database: Engine) -> House:
    """`a` serves, generation 3. `b` passed the gate against it and was rolled back, so that it can be a canary."""
    house = House(database)
    for digest in ("a", "b"):
        house.train(digest, dataset=f"of-{digest}")
    promotions.roll_back(house.begin, NAME, 2)
    return house


@pytest.fixture
def replicas() -> tuple[Replica, Replica]:
    return Replica("inference-0"), Replica("inference-1")


def ask_all(house: House, *replicas: Replica) -> dict[str, set[str]]:
    """Let every key ask each replica twice; returns the adapters that answered each key."""
    house.send_to(*replicas)
    adapters = {key.key_id: {replica.ask(key) for replica in replicas for _ in range(2)} for key in KEYS}
    house.receive_from(*replicas)
    return adapters


def test_the_same_share_of_the_callers_gets_it_until_it_is_promoted(
    house: House, database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    started = house.start("b")
    assert (started.generation, started.adapter_digest) == (4, "a")
    answers = ask_all(house, *replicas)
    assert {frozenset(adapters) for adapters in answers.values()} == {frozenset("a"), frozenset("b")}
    callers = sum(adapters == {"b"} for adapters in answers.values())
    canary = house.canary()
    assert (canary.state, canary.canary.callers, canary.canary.calls) == (RUNNING, callers, 4 * callers)
    assert (canary.incumbent.callers, canary.incumbent.calls) == (40 - callers, 4 * (40 - callers))
    assert canary.canary.first_token_seconds == pytest.approx(0.1)
    # Another registry over the same database, as after a restart, continues.
    again = House(database)
    again.check()
    serving = again.serving()
    assert (serving.generation, serving.adapter_digest, serving.previous_digest, serving.canary) == (5, "b", "a", None)
    canary = again.canary()
    assert (canary.state, canary.canary.calls) == (FORWARD, 4 * callers)
    assert f"0 of {4 * callers} calls failed" in canary.reason
    with again.begin() as tx:
        assert tx.canaries.find_running(NAME) is None
    assert {frozenset(adapters) for adapters in ask_all(again, *replicas).values()} == {frozenset("b")}
    with database.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.canary_calls)) == 0


def test_many_errors_withdraw_it_early(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(POLICY, min_calls=10_000))
    for replica in replicas:
        replica.engine.broken.add("b")
    ask_all(house, *replicas)
    house.check()
    assert (house.serving().generation, house.serving().adapter_digest, house.serving().canary) == (5, "a", None)
    canary = house.canary()
    assert (canary.state, canary.canary.errors) == (BACK, canary.canary.calls)
    assert "calls failed, against 0 of" in canary.reason
    assert {frozenset(adapters) for adapters in ask_all(house, *replicas).values()} == {frozenset("a")}


def test_an_adapter_that_does_not_load_counts_as_failed(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(POLICY, min_calls=10_000))
    house.send_to(*replicas)
    for replica in replicas:
        replica.inference.models.cache.drop("b")
        replica.world.library.bad.add("b")
    ask_all(house, *replicas)
    house.check()
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")


def test_a_slow_canary_is_withdrawn(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b")
    for replica in replicas:
        replica.engine.seconds["b"] = 0.2
    ask_all(house, *replicas)
    house.check()
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")
    assert "first token after 0.200 s, against 0.100 s" in house.canary().reason


def test_too_few_calls_withdraw_it_when_its_time_is_up(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(POLICY, min_calls=1_000))
    ask_all(house, *replicas)
    house.check(later=300)
    assert house.canary().state == RUNNING
    house.check(later=601)
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")
    assert "undecided after 600 s" in house.canary().reason


def test_it_is_withdrawn_if_a_replica_refuses_it(house: House, replicas: tuple[Replica, Replica]) -> None:
    first, second = replicas
    house.start("b")
    second.world.library.bad.add("b")
    house.send_to(first, second)
    house.receive_from(first, second)
    assert (house.canary().state, house.canary().reason) == (BACK, "inference-1 refuses it: WRONG_BASE")
    house.send_to(first, second)
    assert [replica.ask(KEYS[0]) for replica in replicas] == ["a", "a"]
    # A refusal of an earlier generation has no effect.
    house.start("b")
    house.receive_from(first, second)
    assert house.canary().state == RUNNING


def test_two_registries_decide_once(house: House, database: Engine, replicas: tuple[Replica, Replica]) -> None:
    house.start("b")
    ask_all(house, *replicas)
    houses = [House(database) for _ in range(4)]
    with ThreadPoolExecutor(len(houses)) as pool:
        list(pool.map(lambda house: house.check(), houses))
    assert (house.serving().generation, house.serving().adapter_digest) == (5, "b")
    assert len(house.decisions()) == 5


@pytest.mark.parametrize(
    ("decide", "state", "serves", "reason"),
    [
        (lambda house: canaries.stop_canary(house.begin, NAME, 4), BACK, "a", "stopped by an operator"),
        (lambda house: promotions.promote(house.begin, NAME, "b", 4), ENDED, "b", "operator promoted"),
        (lambda house: promotions.roll_back(house.begin, NAME, 4), ENDED, "b", "rolled back"),
    ],
)
def test_a_decision_by_an_operator_ends_it(
    house: House, decide: Callable[[House], object], state: int, serves: str, reason: str
) -> None:
    house.start("b")
    decide(house)
    canary = house.canary()
    assert (canary.state, house.serving().adapter_digest, house.serving().canary) == (state, serves, None)
    assert reason in canary.reason
    assert canary.HasField("end_time")


def test_stopping_a_canary_does_not_change_the_previous_adapter(house: House) -> None:
    before = house.serving().previous_digest
    house.start("b")
    canaries.stop_canary(house.begin, NAME, 4)
    assert house.serving().previous_digest == before == "b"


def test_erasing_a_document_of_its_dataset_ends_it(house: House) -> None:
    house.start("b")
    erasures.erase(house.begin, (), ErasureRequest("ers_1", ["doc_" + "0" * 32], "subject-request"))
    assert house.canary().state == RUNNING
    with house.begin() as tx:
        facts.taint_adapters(tx, {"of-b"}, "ers_1")
    assert (house.canary().state, house.serving().adapter_digest, house.serving().canary) == (ENDED, "a", None)
    assert "erased" in house.canary().reason


def test_with_a_policy_an_adapter_starts_as_a_canary_and_the_next_one_waits(
    database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    house = House(database, POLICY)
    house.train("a")
    # Before the first promotion nothing serves, so there is nothing to compare the first adapter with.
    assert (house.serving().generation, house.serving().adapter_digest) == (1, "a")
    house.train("b")
    assert house.serving().canary is not None
    assert (house.serving().generation, house.serving().adapter_digest, house.canary().policy.percent) == (2, "a", 30)
    house.train("c")
    house.train("d", rouge=0.0)
    assert house.serving().generation == 2
    house.check()
    assert house.evaluation.requests == []
    ask_all(house, *replicas)
    # An unavailable evaluation service only delays the request.
    house.evaluation.fails = DOWN
    house.check()
    assert (house.serving().adapter_digest, house.evaluation.requests) == ("b", [])
    house.evaluation.fails = None
    house.check()
    house.check()
    assert [digest for digest, _ in house.evaluation.requests] == ["c"]
    house.evaluate("c")
    assert (house.serving().adapter_digest, house.canary().adapter_digest, house.canary().state) == ("b", "c", RUNNING)


def test_an_evaluation_from_before_a_canary_stays_valid_while_the_same_adapter_serves(house: House) -> None:
    house.train("c", rouge=0.0)
    house.start("b")
    canaries.stop_canary(house.begin, NAME, 4)
    assert house.evaluation.requests == []
    house.start("b")
    assert house.canary().generation == 6


def test_an_adapter_that_can_no_longer_be_evaluated_is_dropped(
    database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    house = House(database, POLICY)
    for digest in ("a", "b", "c"):
        house.train(digest)
    ask_all(house, *replicas)
    house.evaluation.fails = NotFound(Reason.NO_DATASET, "It was erased.")
    house.check()
    assert house.serving().adapter_digest == "b"
    house.evaluation.fails = None
    house.check()
    assert house.evaluation.requests == []


def test_a_paused_registry_decides_nothing_after_its_lease(
    house: House, database: Engine, replicas: tuple[Replica, Replica]
) -> None:
    house.start("b")
    ask_all(house, *replicas)
    (paused,) = house.jobs.claim()
    again = House(database)
    again.check()
    assert again.serving().generation == 4
    end_leases(database, tables.jobs)
    (taken,) = again.jobs.claim()
    house.jobs.work(paused)
    assert again.serving().generation == 4
    again.jobs.work(taken)
    assert (again.serving().generation, again.serving().adapter_digest) == (5, "b")


def test_a_canary_must_have_passed_the_gate_against_the_incumbent(house: House) -> None:
    def start(digest: str, policy: CanaryPolicy = POLICY) -> str:
        with pytest.raises((FailedPrecondition, InvalidArgument)) as caught:
            house.start(digest, policy)
        return caught.value.reason

    house.train("poor", rouge=0.0)
    assert start("poor") == "GATE_NOT_MET"
    assert start("a") == "SERVES_ALREADY"
    assert start("b", replace(POLICY, percent=100)) == "INVALID_CANARY"
    with pytest.raises(Aborted):
        canaries.start_canary(house.begin, NAME, "b", 2, lambda policy: policy)
    with pytest.raises(FailedPrecondition):
        canaries.stop_canary(house.begin, NAME, 3)
    house.start("b")
    assert start("b") == "CANARY_RUNS"
    promotions.roll_back(house.begin, NAME, 4)
    # `b` serves now, but `a` was evaluated when nothing served.
    assert start("a") == "INCUMBENT_MOVED"


def test_a_canary_can_be_compared_with_the_base(database: Engine) -> None:
    house = House(database)
    house.train("a")
    promotions.roll_back(house.begin, NAME, 1)
    assert house.start("a").canary is not None


# So long that a slow machine does not end it.
OUTCOMES = replace(
    POLICY, percent=50, max_seconds=100_000, outcome="satisfaction", min_reports=12, max_outcome_loss=1.0
)


def ask_some(house: House, *replicas: Replica) -> None:
    """Let half of the keys ask each replica once."""
    house.send_to(*replicas)
    for key in KEYS[:20]:
        for replica in replicas:
            replica.ask(key)
    house.receive_from(*replicas)


def report_satisfaction(house: House, replicas: tuple[Replica, Replica], canary: int, incumbent: int) -> None:
    """Every caller says how good each of its drafts was."""
    for replica in replicas:
        for draft in replica.world.published.drafts:
            marks = canary if draft.served.adapter_digest == "b" else incumbent
            told = DraftOutcome(f"out_{draft.draft_id}", draft.draft_id, NAME, 0.0, marks, datetime.now(UTC))
            store_outcome(house.begin, told, "")


def test_an_outcome_withdraws_a_canary_that_answers_fast_but_worse(
    house: House, replicas: tuple[Replica, Replica]
) -> None:
    house.start("b", OUTCOMES)
    ask_some(house, *replicas)
    house.check()
    assert house.canary().state == RUNNING
    report_satisfaction(house, replicas, canary=1, incumbent=5)
    running = house.canary()
    assert running.canary.reports == running.canary.calls > 12 and running.canary.outcome == 1.0
    assert running.incumbent.reports == running.incumbent.calls and running.incumbent.outcome == 5.0
    house.check()
    ended = house.canary()
    assert (ended.state, house.serving().adapter_digest) == (BACK, "a")
    assert "satisfaction 1.00 in" in ended.reason and "against 5.00 in" in ended.reason
    assert (ended.canary.reports, ended.policy.outcome) == (running.canary.reports, "satisfaction")


def test_an_outcome_that_is_certainly_not_worse_promotes_it(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", OUTCOMES)
    ask_some(house, *replicas)
    report_satisfaction(house, replicas, canary=5, incumbent=4)
    house.check()
    assert (house.canary().state, house.serving().adapter_digest) == (FORWARD, "b")
    assert "calls failed" in house.canary().reason and "satisfaction 5.00" in house.canary().reason


def test_without_reports_it_is_withdrawn_as_undecided_at_its_end(
    house: House, replicas: tuple[Replica, Replica]
) -> None:
    house.start("b", OUTCOMES)
    ask_some(house, *replicas)
    house.check(later=50_000)
    assert house.canary().state == RUNNING
    house.check(later=100_001)
    assert (house.canary().state, house.serving().adapter_digest) == (BACK, "a")
    assert "0 reports of satisfaction, against 0; the policy requires 12" in house.canary().reason


def test_the_share_kept_can_decide(house: House, replicas: tuple[Replica, Replica]) -> None:
    house.start("b", replace(OUTCOMES, outcome="edit_retention", max_outcome_loss=0.3))
    ask_some(house, *replicas)
    with house.begin() as tx:
        for replica in replicas:
            for draft in replica.world.published.drafts:
                served = draft.served
                share = 0.9 if served.adapter_digest == "b" else None
                final = FinalText(
                    draft.draft_id, "", NAME, served.generation, served.adapter_digest, share, datetime.now(UTC)
                )
                tx.outcomes.save_final_text(final)
    running = house.canary()
    assert running.canary.outcome == pytest.approx(0.9) and running.incumbent.reports == 0
    house.check()
    assert house.canary().state == RUNNING


def test_no_canary_across_bases_starts(database: Engine) -> None:
    house = House(database, POLICY)
    house.train("a")
    facts.record_replica(
        house.begin, SeenReplica("inference-1", "tiny-dora", datetime.now(UTC), adapter_digest="merged")
    )
    # Neither an adapter that a base stands for, nor the next one after it, is tried: both serve at once.
    house.train("merged")
    assert (house.serving().adapter_digest, house.serving().canary) == ("merged", None)
    with pytest.raises(FailedPrecondition, match="Promote it instead"):
        house.start("a")
    house.train("b")
    assert (house.serving().adapter_digest, house.serving().canary) == ("b", None)
