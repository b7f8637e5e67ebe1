"""What training does on each command and on each dataset; `reporting.py` has the worker's words."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from services.training.domain import POLICY, PREFERENCE, REWARD, Adapter, Base, Dataset, Failure, Run
from services.training.new_run import Found, Wanted, check_parent, make_run, unusable_run
from services.training.plans import Plan, Planner, PlanRequest, Rates, priced
from services.training.ports import Adapters, Bases, Datasets, News, Runs, Seen, Unit
from services.training.transitions import cancel, fail, given_rankings, newest, planned, queue_again
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError
from tailor.storage.ref import Ref

SLUG = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_PRIORITY = 100
# The device may have changed since: an older plan is made again before a run is created.
PLAN_LASTS = timedelta(hours=1)


@dataclass(frozen=True)
class Context:
    """What the handlers work with."""

    runs: Runs
    bases: Bases
    datasets: Datasets
    adapters: Adapters
    planner: Planner
    recipes: Path
    rates: Rates
    now: Callable[[], datetime]


@dataclass(frozen=True)
class Built:
    """A dataset as its event states it. `ranked_adapter` is the one whose drafts were ranked last."""

    digest: str
    specialist: str
    kind: str
    manifest: Ref
    base: str
    recipe: str
    ranked_adapter: str = ""


def dataset_built(context: Context, built: Built) -> Run | None:
    """Queue the run that the specialist's recipe asks for; the same dataset again changes nothing.

    Rankings go to the runs that wait for them; else, where the specialist names a recipe for them, a run of their own stands on the policy
    adapter whose drafts were ranked last, else on its newest. What cannot work makes a run that failed, so that whoever waits for it learns
    why.
    """
    wanted = Wanted(built.specialist, built.digest, built.base, built.recipe)
    if built.kind == PREFERENCE:
        known = _give_rankings(context, built)
        if known is not None or not built.recipe:
            return known
        parent = context.runs.newest_adapter(built.specialist, built.base, POLICY, rather=built.ranked_adapter)
        wanted = replace(wanted, parent_digest=parent)
    dataset = Dataset(built.manifest, built.kind, built.specialist)
    try:
        run = make_run(wanted, Found(dataset, parent=_parent(context, wanted)), context.recipes, context.now())
    except TailorError as error:
        if error.retryable:
            raise
        run = unusable_run(wanted, dataset, context.now())
        return _keep(context, fail(run, Failure(error.reason, error.message), context.now()))
    return _keep(context, run)


def _give_rankings(context: Context, built: Built) -> Run | None:
    """Give the dataset to every run of the specialist that waits for one; a run that has it, or that was made of it, if any."""
    with context.runs.unit() as unit:
        known = unit.learning_from(built.specialist, built.digest)
        for waiting in unit.active():
            if waiting.key.specialist == built.specialist and waiting.lacks_rankings:
                known.append(given_rankings(waiting, built.manifest))
                unit.save(known[-1])
    return next((run for run in known if _answers(run, built)), None)


def _answers(run: Run, built: Built) -> bool:
    """True where the run is the specialist's own, or was given the dataset; not where somebody named the dataset for another run."""
    if run.key.dataset_digest == built.digest:
        return (run.recipe, run.key.base) == (built.recipe, built.base)
    return run.key.preference_dataset_digest != built.digest


def create_run(context: Context, wanted: Wanted) -> Run:
    """Queue a run, or find the one that exists. One that was cancelled or failed goes on where it stopped, under the same id.

    InvalidArgument for what is wrong, NotFound for an unknown dataset, base or parent, FailedPrecondition (DOES_NOT_FIT, WRONG_PARENT,
    NO_REWARD_ADAPTER) for what could not work. Plans first, which may take seconds.
    """
    run, base = _asked_for(context, wanted)
    existing = context.runs.find(run.run_id)
    if existing is not None and not existing.may_go_on:
        return existing
    _check_reward(context, run)
    plan = context.runs.plan(run.run_id)
    if plan is None or not plan.fits or context.now() - plan.create_time > PLAN_LASTS:
        plan = make_plan(context, run, base)
    if not plan.fits:
        failure = does_not_fit(plan)
        raise FailedPrecondition(Reason(failure.reason), failure.message, nearest_recipe=plan.nearest_recipe)
    if existing is not None:
        return _go_on(context, run.run_id, plan, base)
    return _keep(context, planned(run, plan, base.digest))


def _go_on(context: Context, run_id: str, plan: Plan, base: Base) -> Run:
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if run.may_go_on:
            run = planned(queue_again(run), plan, base.digest)
            unit.save(run)
    return run


def plan_run(context: Context, wanted: Wanted) -> Plan:
    """What a run would take, kept for the run of the same key. Errors as in `create_run`, but that it does not fit is an answer."""
    run, base = _asked_for(context, wanted)
    _check_reward(context, run)
    plan = make_plan(context, run, base)
    with context.runs.unit() as unit:
        unit.keep_plan(run.run_id, plan)
    return plan


def _asked_for(context: Context, wanted: Wanted) -> tuple[Run, Base]:
    if not wanted.specialist or not wanted.dataset_digest or not wanted.base:
        raise InvalidArgument(Reason.MISSING_FIELD, "Name the specialist, the dataset and the base.")
    if abs(wanted.priority) > MAX_PRIORITY:
        raise InvalidArgument(
            Reason.INVALID_PRIORITY, "A priority is from -100 to 100.", field_violations={"priority": "beyond"}
        )
    base = context.bases.find(wanted.base)
    if base is None:
        name = wanted.base
        raise NotFound(
            Reason.UNKNOWN_BASE, f"There is no base {name!r}; add it first (`tailor models add`).", base=name
        )
    preferred = wanted.preference_dataset_digest
    found = Found(
        context.datasets.find(wanted.dataset_digest),
        context.datasets.find(preferred) if preferred else None,
        _parent(context, wanted),
    )
    return make_run(wanted, found, context.recipes, context.now()), base


def _check_reward(context: Context, run: Run) -> None:
    """FailedPrecondition (NO_REWARD_ADAPTER) where a stage wants a learned reward that nothing has made, or will make before it."""
    kinds = [stage.kind for stage in run.stages]
    if any(stage.wants_reward and REWARD not in kinds[:number] for number, stage in enumerate(run.stages)):
        find_reward(context, run)


def _parent(context: Context, wanted: Wanted) -> Adapter | None:
    if not wanted.parent_digest:
        return None
    parent = context.adapters.find(wanted.parent_digest)
    check_parent(wanted, parent)
    return parent


def make_plan(context: Context, run: Run, base: Base) -> Plan:
    """The forecast with its price; outside every transaction. May raise what the planner and the store raise."""
    plan = context.planner.plan(PlanRequest(run.key.specialist, base, run.stages, run.parent))
    return priced(plan, context.rates, [context.datasets.find(digest) for digest in run.datasets])


def does_not_fit(plan: Plan) -> Failure:
    """Why a run is refused, with the nearest recipe that would fit."""
    nearest = f" The nearest recipe that would fit is {plan.nearest_recipe!r}." if plan.nearest_recipe else ""
    return Failure(Reason.DOES_NOT_FIT, f"{plan.refusal}{nearest}")


def find_reward(context: Context, run: Run) -> Ref:
    """The reward adapter of the present stage: the run's own, else the newest of the specialist on the base.

    FailedPrecondition (NO_REWARD_ADAPTER) where there is none.
    """
    own = newest(run.stages, REWARD)
    digest = context.runs.newest_adapter(run.key.specialist, run.key.base, REWARD)
    if own is None and not digest:
        raise FailedPrecondition(
            Reason.NO_REWARD_ADAPTER,
            f"A reward of kind 'model' needs a reward adapter of {run.key.specialist!r} on {run.key.base!r}: run a recipe of method "
            "'reward' first, or put it before this one as a stage.",
        )
    return own or context.adapters.find(digest).manifest


def _keep(context: Context, run: Run) -> Run:
    with context.runs.unit() as unit:
        if unit.add(run):
            if run.state.ended:
                unit.state_failure(run)
            return run
        existing = unit.get(run.run_id)
    return existing or run


def get_run(context: Context, run_id: str) -> Run:
    """A run; NotFound (UNKNOWN_RUN)."""
    run = context.runs.find(run_id)
    if run is None:
        raise _no_such_run(run_id)
    return run


def watch_run(context: Context, run_id: str, seen: Seen) -> News:
    """A run and what is new of it; NotFound (UNKNOWN_RUN)."""
    news = context.runs.news(run_id, seen)
    if news is None:
        raise _no_such_run(run_id)
    return news


def list_runs(context: Context, specialist: str, size: int, token: str) -> tuple[list[Run], str]:
    """A page of runs, newest first, and the next page's token. InvalidArgument for a token that is none."""
    size = min(size or DEFAULT_PAGE, MAX_PAGE)
    if size < 0:
        raise InvalidArgument(Reason.INVALID_PAGE_SIZE, "page_size is from 0 to 200.")
    runs = context.runs.page(specialist, size + 1, _from_token(token))
    more = runs[size - 1] if len(runs) > size else None
    return runs[:size], f"{more.create_time.isoformat()} {more.run_id}" if more else ""


def _from_token(token: str) -> tuple[datetime, str] | None:
    if not token:
        return None
    moment, _, run_id = token.partition(" ")
    try:
        return datetime.fromisoformat(moment), run_id
    except ValueError:
        raise InvalidArgument(Reason.INVALID_PAGE_TOKEN, "page_token is the next_page_token of an answer.") from None


def cancel_run(context: Context, run_id: str) -> Run:
    """End a run; its worker learns it with its next report, and the supervisor stops it."""
    with context.runs.unit() as unit:
        run = cancel(locked(unit, run_id), context.now())
        unit.save(run)
        unit.state_failure(run)
    return run


def locked(unit: Unit, run_id: str) -> Run:
    """The run, locked; NotFound (UNKNOWN_RUN)."""
    run = unit.get(run_id)
    if run is None:
        raise _no_such_run(run_id)
    return run


def add_base(context: Context, name: str, source: str) -> Iterator[str | Base]:
    """Fetch a base; yields what is done, then the base."""
    if not SLUG.fullmatch(name):
        raise InvalidArgument(
            Reason.INVALID_NAME, "A base's name is a slug: a-z, 0-9, '-' and '.', at most 63 characters."
        )
    return context.bases.add(name, source)


def list_bases(context: Context) -> list[Base]:
    """The bases, by name."""
    return context.bases.list()


def _no_such_run(run_id: str) -> NotFound:
    return NotFound(Reason.UNKNOWN_RUN, "There is no such run.", run_id=run_id)
