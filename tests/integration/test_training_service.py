"""The gRPC methods of training over the database, approvals, and several services on one database."""

import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.training import handlers
from services.training.consumers import Consumers
from services.training.domain import Base, RunState, Stage
from services.training.plans import HourLimits, Plan, limit_hours
from services.training.queue import Limits
from services.training.supervisor import WAITING_PART, Supervisor, prepare_runs, show_waiting_runs
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.codec import encode
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unauthenticated
from tailor.events.envelope import Event
from tailor.events.faults import Faults
from tailor.rpc.auth import Caller, set_caller
from tailor.sql import connect
from tests.integration.training_service import ONE, OPERATOR, House, at_once, call, training_service
from tests.unit.training.fakes import PLAN

pytestmark = pytest.mark.integration

HOUR = 3600.0
# 86 hours on one CPU: 30 seconds around the steps, and each of 2 million tokens in two passes.
LONG = replace(PLAN, devices=1, seconds=86 * HOUR, fixed_seconds=30.0, train_token_seconds=(86 * HOUR - 30) / 2e6)


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    with training_service(database_url, tmp_path) as house:
        yield house


def request(house: House, **changes: Any) -> dict[str, Any]:
    return {"specialist": "reports", "dataset_digest": house.digest("d1"), "base": "tiny", "recipe": "tiny"} | changes


def test_an_undecodable_event_is_rejected(house: House) -> None:
    with pytest.raises(InvalidArgument):
        Consumers(house.ports).on_dataset_built(Event("dataset.built.v1", "k", b"\xff\xff\xff"))


def test_a_planned_run_is_created_listed_reported_and_cancelled(house: House) -> None:
    plan = house.servicer.PlanRun(pb.PlanRunRequest(**request(house)), call()).plan
    run = house.servicer.CreateRun(pb.CreateRunRequest(**request(house)), call()).run
    assert (run.plan, plan.run_id) == (plan, run.run_id)
    assert plan.price.total == pytest.approx(10.04)
    house.supervisor.tick()
    house.step(run.run_id, 1, 1, learning_rate=0.01, reward=0.5)
    (listed,) = house.servicer.ListRuns(pb.ListRunsRequest(specialist="reports"), call()).runs
    assert (listed.state, listed.epoch, listed.progress.stage) == (pb.RUN_STATE_RUNNING, 1, 0)
    assert (listed.progress.reward, listed.progress.HasField("kl")) == (0.5, False)
    assert (listed.recipe_digest, listed.stages[0].recipe) == (house.only_run().key.recipe_digest, "tiny")
    cancelled = house.servicer.CancelRun(pb.CancelRunRequest(run_id=run.run_id), call()).run
    assert cancelled.state == pb.RUN_STATE_CANCELLED


@pytest.mark.parametrize(
    ("caller", "approved_by"),
    [(replace(OPERATOR, key_id="key_7"), "key_7"), (Caller("service", "console", ""), "key_5")],
)
def test_a_run_above_the_limit_is_approved_by_a_key_or_by_the_consoles_visitor(
    house: House, caller: Caller, approved_by: str
) -> None:
    house.forecast = replace(PLAN, seconds=86 * 3600.0)
    run_id = house.start()
    run = house.servicer.GetRun(pb.GetRunRequest(run_id=run_id), call()).run
    assert (run.state, run.reason, run.plan.max_hours) == (pb.RUN_STATE_AWAITING_APPROVAL, "WAITS_FOR_APPROVAL", 2.0)
    assert run.plan.needs_approval and not run.HasField("approve_time")
    set_caller(caller)
    approved = house.servicer.ApproveRun(pb.ApproveRunRequest(run_id=run_id, approved_by="key_5"), call()).run
    assert (approved.state, approved.approved_by) == (pb.RUN_STATE_QUEUED, approved_by)
    assert approved.approve_time.ToDatetime(house.now().tzinfo) == house.now()


def test_a_run_above_the_limit_waits_shows_why_and_starts_once_somebody_approves_it(house: House) -> None:
    house.forecast = LONG
    faults = Faults()
    run_id = house.start()
    run = house.only_run()
    for _ in range(3):
        house.now.forward(3600)
        house.supervisor.tick()
    assert house.only_run() == run == house.create()
    assert (run.state, run.reason, run.epoch) == (RunState.AWAITING_APPROVAL, "WAITS_FOR_APPROVAL", 0)
    assert (house.launcher.started, house.topics(), len(house.forecasts)) == ([], [], 1)
    assert "forecast at 86 hours, above the limit of 2" in run.message
    assert f"`tailor run approve {run_id}`" in run.message
    (setting,) = [part for part in run.message.split("`") if part.startswith("max_train_tokens")]
    tokens = tomllib.loads(setting)["max_train_tokens"]
    # 2 of 86 hours, with the margin.
    assert 40_000 <= tokens <= 2e6 * 2 / 86
    fits = replace(LONG, seconds=LONG.fixed_seconds + tokens * LONG.train_token_seconds)
    assert not limit_hours(fits, HourLimits(), 0.0).needs_approval
    show_waiting_runs(house.runs, faults)
    (fault,) = faults.all()
    assert (fault.part, fault.reason, fault.waits) == (WAITING_PART, "WAITS_FOR_APPROVAL", False)
    assert run.message in fault.message
    assert REGISTRY.get_sample_value("tailor_runs_awaiting_approval") == 1
    approved = handlers.approve_run(house.ports, run_id, "key_7")
    assert (approved.state, approved.reason, approved.approved_by) == (RunState.QUEUED, "", "key_7")
    assert approved.approve_time == house.now()
    assert handlers.approve_run(house.ports, run_id, "key_8") == approved
    show_waiting_runs(house.runs, faults)
    assert not faults.all() and REGISTRY.get_sample_value("tailor_runs_awaiting_approval") == 0
    house.supervisor.tick()
    assert [job.run.run_id for job in house.launcher.started] == [run_id]
    # Once approved, it resumes without another approval.
    handlers.cancel_run(house.runs, run_id, house.now())
    with pytest.raises(FailedPrecondition) as refused:
        handlers.approve_run(house.ports, run_id, "key_7")
    assert refused.value.reason == "RUN_NOT_WAITING"
    assert house.create().state is RunState.QUEUED


def test_a_waiting_run_is_cancelled_superseded_or_forecast_again_like_others_and_reserves_no_budget(
    house: House,
) -> None:
    house.forecast = replace(LONG, fixed_seconds=3 * HOUR)
    run_id = house.start()
    assert "max_train_tokens" not in house.only_run().message
    assert "or use a smaller recipe or base" in house.only_run().message
    assert handlers.cancel_run(house.runs, run_id, house.now()).state is RunState.CANCELLED
    assert house.create().state is RunState.AWAITING_APPROVAL
    house.now.forward(60)
    rankings = house.create(recipe="polish")
    assert rankings.state is RunState.AWAITING_APPROVAL
    house.change_specialist(monthly_budget=10.0)
    with pytest.raises(FailedPrecondition) as refused:
        handlers.approve_run(house.ports, run_id, "key_7")
    assert (refused.value.reason, house.runs.get(run_id).state) == ("OVER_BUDGET", RunState.AWAITING_APPROVAL)
    house.forecast = replace(PLAN, seconds=60.0)
    other = house.create(recipe="other").run_id
    with pytest.raises(FailedPrecondition) as refused:
        handlers.approve_run(house.ports, other, "key_7")
    assert refused.value.reason == "RUN_NOT_WAITING"
    house.publish("d2", minutes=1)
    assert house.runs.get(run_id).reason == "SUPERSEDED"
    house.publish("p1", minutes=2)
    house.supervisor.tick()
    assert house.runs.get(rankings.run_id).state in {RunState.QUEUED, RunState.RUNNING}


def test_a_stored_plan_is_held_against_the_specialists_limit_which_can_only_be_lower(house: House) -> None:
    house.forecast = replace(LONG, seconds=HOUR)
    house.change_specialist(max_training_hours=100.0)
    assert not handlers.plan_run(house.ports, house.wanted()).needs_approval
    house.change_specialist(max_training_hours=0.5)
    run = house.create()
    assert (run.state, len(house.forecasts)) == (RunState.AWAITING_APPROVAL, 1)
    assert "above the limit of 0.5" in run.message


def test_pages_hold_every_run_once(house: House) -> None:
    for number in range(5):
        house.publish(specialist=f"s{number}")
        house.now.forward(1)
    seen, token = list[str](), ""
    while True:
        page = house.servicer.ListRuns(pb.ListRunsRequest(page_size=2, page_token=token), call())
        seen += [run.specialist for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["s4", "s3", "s2", "s1", "s0"]
    with pytest.raises(InvalidArgument):
        house.servicer.ListRuns(pb.ListRunsRequest(page_token="nonsense"), call())


def test_a_watch_streams_past_and_new_reports_and_lines_until_the_run_ends(house: House) -> None:
    run_id = house.start()
    house.step(run_id, 1, 1)
    house.report(run_id, 1, log=pb.LogLines(lines=[pb.LogLine(message="checkpoint stored")]))
    seen: list[pb.WatchRunResponse] = []

    def watch() -> None:
        set_caller(OPERATOR)
        seen.extend(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    house.step(run_id, 1, 2)
    house.report(run_id, 1, failed=models_pb2.RunFailed(reason="NO_ROWS", message="none"))
    watcher.join(60)
    assert not watcher.is_alive()
    assert [line.message for response in seen for line in response.log_lines] == ["checkpoint stored"]
    assert [response.run.progress.step for response in seen[1:-1] if not response.log_lines] == [1, 2]
    assert (seen[-1].run.state, seen[-1].run.reason) == (pb.RUN_STATE_FAILED, "NO_ROWS")


def test_a_quiet_watch_ends_once_its_key_is_revoked_or_its_client_disconnects(house: House) -> None:
    watched, asked = pb.WatchRunRequest(run_id=house.start()), []

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Unauthenticated(Reason.UNKNOWN_KEY, "The API key is unknown, expired or revoked.")

    assert len(list(house.servicer.WatchRun(watched, call(active=False)))) == 1
    set_caller(OPERATOR, check)
    with pytest.raises(Unauthenticated):
        list(house.servicer.WatchRun(watched, call()))


def test_a_caller_sees_only_its_own_specialists_and_their_adapters(house: House) -> None:
    run_id, other = house.start(), house.store_adapter(specialist="memos")
    digest = house.digest("d1")
    set_caller(Caller("key", "other", "ROLE_ENGINEER", frozenset({"memos"})))
    assert not house.servicer.ListRuns(pb.ListRunsRequest(), call()).runs
    for refused in (
        lambda: house.servicer.GetRun(pb.GetRunRequest(run_id=run_id), call()),
        lambda: house.servicer.CancelRun(pb.CancelRunRequest(run_id=run_id), call()),
        lambda: house.servicer.ApproveRun(pb.ApproveRunRequest(run_id=run_id), call()),
        lambda: list(house.servicer.WatchRun(pb.WatchRunRequest(run_id=run_id), call())),
        lambda: house.servicer.CreateRun(pb.CreateRunRequest(specialist="reports", dataset_digest=digest), call()),
        lambda: house.servicer.CreateRun(pb.CreateRunRequest(specialist="memos", dataset_digest=digest), call()),
        lambda: house.servicer.PlanRun(pb.PlanRunRequest(specialist="memos", dataset_digest=digest), call()),
    ):
        with pytest.raises(NotFound):
            refused()
    set_caller(Caller("key", "other", "ROLE_ENGINEER", frozenset({"reports"})))
    for parent in (other, "unknown"):
        with pytest.raises(NotFound) as unknown:
            house.servicer.PlanRun(pb.PlanRunRequest(**request(house), parent_digest=parent), call())
        assert (unknown.value.reason, unknown.value.message) == ("UNKNOWN_ADAPTER", "There is no such adapter.")
        with pytest.raises(NotFound, match=r"There is no such adapter\."):
            list(house.servicer.ExportAdapter(pb.ExportAdapterRequest(adapter_digest=parent), call()))


def test_bases_are_added_with_their_steps_and_named_if_another_does_not_exist(house: House) -> None:
    def check(base: str, *recipes: str) -> None:
        house.servicer.CheckPipeline(pb.CheckPipelineRequest(base=base, recipes=recipes), call())

    *steps, last = house.servicer.AddBase(pb.AddBaseRequest(name="tiny-2", source="path:/x"), call())
    assert (steps[0].step, last.base.name) == ("fetching path:/x", "tiny-2")
    bases = house.servicer.ListBases(pb.ListBasesRequest(), call()).bases
    assert [base.name for base in bases] == ["tiny", "tiny-2"]
    assert list(bases) == [encode(pb.Base, base) for base in house.ports.bases.list()]
    with pytest.raises(InvalidArgument):
        list(house.servicer.AddBase(pb.AddBaseRequest(name="../etc", source="path:/x"), call()))
    check("tiny", "tiny", "dpo", "chain")
    for base, recipe, reason, message in (
        ("llama-9", "tiny", "UNKNOWN_BASE", "Known bases: tiny, tiny-2. `tailor model add NAME SOURCE`"),
        ("tiny", "nope", "UNKNOWN_RECIPE", "no recipe 'nope'. Known recipes: "),
    ):
        with pytest.raises(TailorError) as refused:
            check(base, "tiny", recipe)
        assert (refused.value.reason, message in refused.value.message) == (reason, True)
    # The default base is known while it is added.
    handlers.check_pipeline(replace(house.ports, default_base="smollm2"), "smollm2", ["tiny"])


def test_two_services_never_start_two_workers_of_a_run_nor_finish_it_twice(
    house: House, database_url: str, tmp_path: Path
) -> None:
    engine = connect(database_url)
    pair = [House(engine, tmp_path, Limits(3, 1)) for engine in (house.engine, engine)]
    for specialist in ("a", "b", "c", "d"):
        pair[0].publish(specialist=specialist)
    ticks = [service.supervisor.tick for service in pair] * 4
    at_once(*ticks)
    jobs = [job for service in pair for job in service.launcher.started]
    runs = {job.run.run_id for job in jobs}
    assert sorted(job.name for job in jobs) == sorted(f"{run}-1" for run in runs)
    assert len(runs) == 3
    # Every worker dies, and both services notice.
    for service in pair:
        service.launcher.exits.update({(run, 1): 1 for run in runs})
    at_once(*ticks)
    for service in pair:
        service.now.forward(3)
    at_once(*ticks)
    second = [job for service in pair for job in service.launcher.started if job.run.epoch == 2]
    assert sorted(job.run.run_id for job in second) == sorted(runs)
    assert {job.run.failures for job in second} == {1}
    # The old workers were only disconnected and report again; the new ones finish and report it twice.
    for run in runs:
        with pytest.raises(Aborted):
            pair[0].trained(run, 1, "late")
    at_once(*(partial(service.trained, run, 2, run) for run in runs for service in pair), *ticks)
    assert sorted(event.run_id for event in house.published("adapter.trained.v1")) == sorted(runs)
    at_once(*ticks)
    (last,) = [job for service in pair for job in service.launcher.started if job.run.run_id not in runs]
    assert last.run.epoch == 1
    engine.dispose()


def test_planning_holds_no_lock_and_a_run_that_is_cancelled_meanwhile_stays_cancelled(house: House) -> None:
    run_id = house.start()
    house.publish(specialist="memos")
    waiting = house.runs.page("memos")[0].run_id

    def meanwhile(*actions: Callable[[], object]) -> None:
        plan = house.ports.plan

        def plan_meanwhile(base: Base, stages: Sequence[Stage]) -> Plan:
            at_once(*actions)
            return plan(base, stages)

        prepare_runs(replace(house.ports, plan=plan_meanwhile))

    meanwhile(lambda: house.beat(run_id, 1), Supervisor(house.runs, house.launcher, ONE, house.now).tick)
    assert house.runs.get(waiting).plan is not None
    house.publish(specialist="letters")
    cancelled = house.runs.page("letters")[0].run_id
    meanwhile(lambda: handlers.cancel_run(house.runs, cancelled, house.now()))
    assert house.runs.get(cancelled).state is RunState.CANCELLED
