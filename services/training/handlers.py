"""What training does on each command. Reports of workers are handled in `reporting.py`, new datasets in `pipeline.py`."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from services.training.adapters.manifests import find_adapter, find_dataset
from services.training.adapters.sql import SqlRuns
from services.training.bases.store import StoredBases
from services.training.domain import REWARD, Adapter, Base, Failure, Run, RunState, Stage
from services.training.exports import Exporter
from services.training.new_run import RunRequest, RunSources, check_parent, make_run
from services.training.plans import HourLimits, Plan, Rates, add_price, limit_hours
from services.training.recipe import load_stages
from services.training.spending import first_of_month, price_committed, price_month
from services.training.transitions import approve, assign_plan, cancel, newest_result, resume
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.logging import get_logger
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

SLUG = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
MAX_PAGE = 200
MAX_PRIORITY = 100
# The device may have changed since: an older plan is made again before a run is created.
PLAN_LIFETIME = timedelta(hours=1)
# A run that ends in a month was created at most so long before it.
LONGEST_RUN = timedelta(days=92)


@dataclass(frozen=True)
class TrainingPorts:
    """What commands and jobs need.

    `plan` forecasts the stages of a run on a base (`StoredPlanner.plan`). `price_other_costs` gives what a specialist has used this month
    besides runs (`RegistryLedger.this_month`).
    `deleted` has the names of deleted specialists, `thinking` of those that let their base think, `budgets` the monthly budget of each and
    `max_hours` its limit of device hours, 0 for none; the reader of their topic changes all four. `budget_lock` is held from the check of
    a budget until the run counts, so that two calls cannot pass it together.
    `default_base` is added at start if it is missing.
    """

    runs: SqlRuns
    bases: StoredBases
    store: ObjectStore
    plan: Callable[[Base, Sequence[Stage]], Plan]
    price_other_costs: Callable[[str], float]
    recipes: Path
    rates: Rates
    now: Callable[[], datetime]
    exporter: Exporter
    deleted: set[str] = field(default_factory=set)
    thinking: set[str] = field(default_factory=set)
    budgets: dict[str, float] = field(default_factory=dict)
    max_hours: dict[str, float] = field(default_factory=dict)
    hour_limits: HourLimits = field(default_factory=HourLimits)
    default_base: str = ""
    budget_lock: threading.Lock = field(default_factory=threading.Lock)


def create_run(ports: TrainingPorts, request: RunRequest) -> Run:
    """Queue a run, or return the existing one. A cancelled or failed run resumes where it stopped, under the same id.

    It waits for approval instead if its forecast is above a limit. Plans the run first, which may take seconds.
    Raises InvalidArgument for a wrong request, NotFound for an unknown dataset, base or parent,
    FailedPrecondition (DOES_NOT_FIT, WRONG_PARENT, NO_REWARD_ADAPTER) if the run cannot work, (OVER_BUDGET) if its
    forecast is above what is left of the specialist's budget, or (SPECIALIST_DELETED), and Unavailable if there is a
    budget and the registry does not answer.
    """
    if request.specialist in ports.deleted:
        raise FailedPrecondition(
            Reason.SPECIALIST_DELETED,
            "The specialist was deleted. Create it again to train for it.",
            specialist=request.specialist,
        )
    run, base = resolve_run(ports, request)
    existing = ports.runs.find(run.run_id)
    if existing is not None and not existing.can_resume:
        return existing
    _check_reward(ports, run)
    plan = ports.runs.plan(run.run_id)
    if plan is None or not plan.fits or ports.now() - plan.create_time > PLAN_LIFETIME:
        plan = make_plan(ports, run, base)
    plan = _limit(ports, run, plan)
    if not plan.fits:
        failure = explain_misfit(plan)
        raise FailedPrecondition(Reason(failure.reason), failure.message, nearest_recipe=plan.nearest_recipe)
    with ports.budget_lock:
        overspending = explain_overspending(ports, run, plan)
        if overspending is not None:
            raise FailedPrecondition(Reason.OVER_BUDGET, overspending.message, specialist=request.specialist)
        if existing is not None:
            return _resume(ports.runs, run.run_id, plan, base)
        return insert_run(ports.runs, assign_plan(run, plan, base))


def _resume(runs: SqlRuns, run_id: str, plan: Plan, base: Base) -> Run:
    with runs.unit() as unit:
        run = unit.get(run_id)
        if run.can_resume:
            run = assign_plan(resume(run), plan, base)
            unit.save(run)
    return run


def _limit(ports: TrainingPorts, run: Run, plan: Plan) -> Plan:
    return limit_hours(plan, ports.hour_limits, ports.max_hours.get(run.key.specialist, 0.0))


def plan_run(ports: TrainingPorts, request: RunRequest) -> Plan:
    """Forecast a run and store the plan for `create_run`. Raises like `create_run`, but a run that does not fit is a valid answer."""
    run, base = resolve_run(ports, request)
    _check_reward(ports, run)
    plan = make_plan(ports, run, base)
    with ports.runs.unit() as unit:
        unit.keep_plan(run.run_id, plan)
    return plan


def resolve_run(ports: TrainingPorts, request: RunRequest) -> tuple[Run, Base]:
    """The run of a request, not stored, and its base. Raises like `create_run` for a wrong request."""
    if not request.specialist or not request.dataset_digest or not request.base:
        raise InvalidArgument(Reason.MISSING_FIELD, "Set `specialist`, `dataset_digest` and `base`.")
    if abs(request.priority) > MAX_PRIORITY:
        raise InvalidArgument(
            Reason.INVALID_PRIORITY,
            "`priority` must be between -100 and 100.",
            field_violations={"priority": "must be between -100 and 100"},
        )
    base = ports.bases.find(request.base)
    if base is None:
        name = request.base
        raise NotFound(
            Reason.UNKNOWN_BASE,
            f"There is no base {name!r}. Add it first with `tailor model add {name} SOURCE`.",
            base=name,
        )
    preferred = request.preference_dataset_digest
    sources = RunSources(
        find_dataset(ports.store, request.dataset_digest),
        find_dataset(ports.store, preferred) if preferred else None,
        _find_parent(ports.store, request),
    )
    thinking = request.specialist in ports.thinking
    return make_run(request, sources, ports.recipes, ports.now(), thinking=thinking), base


def _check_reward(ports: TrainingPorts, run: Run) -> None:
    """Raise FailedPrecondition (NO_REWARD_ADAPTER) if a stage needs a learned reward that neither exists nor is made before it."""
    kinds = [stage.kind for stage in run.stages]
    if any(stage.wants_reward and REWARD not in kinds[:number] for number, stage in enumerate(run.stages)):
        find_reward(ports, run)


def _find_parent(store: ObjectStore, request: RunRequest) -> Adapter | None:
    if not request.parent_digest:
        return None
    parent = find_adapter(store, request.parent_digest)
    check_parent(request, parent)
    return parent


def make_plan(ports: TrainingPorts, run: Run, base: Base) -> Plan:
    """The run's forecast with its price. Raises what the planner and the stores raise. Never call it within a transaction."""
    plan = ports.plan(base, run.worked_stages)
    datasets = [find_dataset(ports.store, digest) for digest in run.datasets]
    return add_price(
        _limit(ports, run, replace(plan, run_id=run.run_id, budget_left=find_budget_left(ports, run))),
        ports.rates,
        teacher_tokens=sum(dataset.teacher_tokens for dataset in datasets),
        judgements=sum(dataset.judgements for dataset in datasets),
    )


def explain_overspending(ports: TrainingPorts, run: Run, plan: Plan) -> Failure | None:
    """Why the plan's compute costs more than is left of the specialist's budget this month; None if it does not, or costs nothing.

    Blocks. Raises as `find_budget_left`.
    """
    left = find_budget_left(ports, run)
    if left is None or plan.price.compute <= max(left, 0.0):
        return None
    name, currency, budget = run.key.specialist, plan.price.currency, ports.budgets[run.key.specialist]
    return Failure(
        Reason.OVER_BUDGET,
        f"The run is forecast at {plan.price.compute:.2f} {currency}, but {max(left, 0.0):.2f} {currency} of the monthly budget of "
        f"{budget:.2f} {currency} of {name!r} are left. Use a smaller recipe, raise its monthly budget, or resume the run next month.",
    )


def find_budget_left(ports: TrainingPorts, run: Run) -> float | None:
    """What other runs, the run itself so far, and everything else that the specialist used leave of its budget this month.

    None without a budget. Blocks. Raises Unavailable while the registry does not answer.
    """
    budget = ports.budgets.get(run.key.specialist)
    if not budget:
        return None
    known = ports.runs.find(run.run_id)
    spent = price_month(known, first_of_month(ports.now())) if known else 0.0
    return budget - spent - price_others(ports, run) - ports.price_other_costs(run.key.specialist)


def price_others(ports: TrainingPorts, run: Run) -> float:
    """What the other runs of the specialist have used this month. Those that have not ended count with at least their forecast."""
    month = first_of_month(ports.now())
    runs = ports.runs.active_since(run.key.specialist, month - LONGEST_RUN)
    return price_committed((other for other in runs if other.run_id != run.run_id), month)


def explain_misfit(plan: Plan) -> Failure:
    """Why the run does not fit, with the nearest recipe that does."""
    nearest = f" The nearest recipe that fits is {plan.nearest_recipe!r}." if plan.nearest_recipe else ""
    return Failure(Reason.DOES_NOT_FIT, f"{plan.refusal}{nearest}")


def find_reward(ports: TrainingPorts, run: Run) -> Ref:
    """The reward adapter of the current stage: the run's own, else the specialist's newest on the base.

    Raises FailedPrecondition (NO_REWARD_ADAPTER) if there is none.
    """
    trained = newest_result(run.stages, REWARD)
    digest = ports.runs.newest_adapter(run.key.specialist, run.key.base, REWARD)
    if trained is None and not digest:
        raise FailedPrecondition(
            Reason.NO_REWARD_ADAPTER,
            f"A reward of kind 'model' needs a reward adapter of {run.key.specialist!r} on {run.key.base!r}. Run a recipe of method "
            "'reward' first, or put it before this one as a stage.",
        )
    return trained or find_adapter(ports.store, digest).manifest


def insert_run(runs: SqlRuns, run: Run) -> Run:
    """Store a new run, and publish its failure if it has failed. Returns the existing one with the same key instead, if there is one."""
    with runs.unit() as unit:
        if unit.add(run):
            if run.state.ended:
                unit.publish_failure(run)
            return run
        return unit.get(run.run_id)


def approve_run(ports: TrainingPorts, run_id: str, approved_by: str) -> Run:
    """Queue a run that waits for approval. Idempotent until the run has ended.

    `approved_by` is the key or person, or empty for the operator of the console. Raises NotFound (UNKNOWN_RUN), FailedPrecondition
    (RUN_NOT_WAITING), or (OVER_BUDGET) if its forecast is above what is left of the specialist's budget. Blocks.
    """
    run = ports.runs.get(run_id)
    if run.approve_time is not None and not run.state.ended:
        return run
    with ports.budget_lock:
        overspending = explain_overspending(ports, run, run.plan) if run.plan is not None else None
        if overspending is not None and run.state is RunState.AWAITING_APPROVAL:
            raise FailedPrecondition(Reason.OVER_BUDGET, overspending.message, run_id=run_id)
        with ports.runs.unit() as unit:
            approved = approve(unit.get(run_id), approved_by, ports.now())
            unit.save(approved)
    log.info("run approved", run_id=run_id, key_id=approved_by)
    return approved


def cancel_run(runs: SqlRuns, run_id: str, now: datetime) -> Run:
    """End a run. Its worker learns of it with its next report, and the supervisor stops it."""
    with runs.unit() as unit:
        run = cancel(unit.get(run_id), now)
        unit.save(run)
        unit.publish_failure(run)
    return run


def cancel_runs_of(runs: SqlRuns, specialist: str, deleted_at: datetime, now: datetime) -> None:
    """Cancel the runs of a deleted specialist. Later ones belong to a new specialist of that name. Idempotent."""
    with runs.unit() as unit:
        for run in unit.active():
            if run.key.specialist == specialist and run.create_time <= deleted_at:
                cancelled = cancel(run, now)
                unit.save(cancelled)
                unit.publish_failure(cancelled)


def add_base(bases: StoredBases, name: str, source: str) -> Iterator[str | Base]:
    """Fetch a base. Yields readable progress, then the base. Raises InvalidArgument (INVALID_NAME), and what the store raises."""
    if not SLUG.fullmatch(name):
        raise InvalidArgument(
            Reason.INVALID_NAME, "A base's name must be a slug: a-z, 0-9, '-' and '.', at most 63 characters."
        )
    return bases.add(name, source)


def check_pipeline(ports: TrainingPorts, base: str, recipes: Iterable[str]) -> None:
    """Raises NotFound (UNKNOWN_BASE) for a base that does not exist and is not being added, InvalidArgument (UNKNOWN_RECIPE)."""
    if base != ports.default_base and ports.bases.find(base) is None:
        known = ", ".join(sorted({item.name for item in ports.bases.list()} | {ports.default_base} - {""}))
        raise NotFound(
            Reason.UNKNOWN_BASE,
            f"There is no base {base!r}. Known bases: {known or 'none'}. `tailor model add NAME SOURCE` adds another.",
            base=base,
        )
    for recipe in recipes:
        load_stages(recipe, ports.recipes)


def add_default_base(bases: StoredBases, name: str, source: str) -> None:
    """Add the installation's base if it is missing; runs wait for it. Blocks. Only what a retry may mend is raised, the rest is logged."""
    if bases.find(name) is not None:
        return
    try:
        for step in add_base(bases, name, source):
            log.info("adding the default base", base=name, step=step if isinstance(step, str) else "added")
    except TailorError as error:
        if error.retryable:
            raise
        log.warning("the default base was not added", base=name, reason=error.reason)
