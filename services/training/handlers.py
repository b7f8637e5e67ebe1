"""What training does on each command and event."""

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from services.training.domain import (
    Base,
    Bases,
    Datasets,
    Failure,
    Progress,
    Run,
    RunKey,
    Runs,
    RunState,
    Trained,
    Unit,
    advance,
    cancel,
    due_for_event,
    fail,
    renew,
    succeed,
)
from services.training.recipe import Recipe, load_recipe
from tailor.errors import InvalidArgument, NotFound, TailorError
from tailor.storage.ref import Ref

# The namespace of run ids: the same key gives the same id on every replica.
RUNS = uuid.UUID("0f3b7a52-4c0e-5d43-9a7e-6f1b2f9d3c10")
SLUG = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
DEFAULT_PAGE = 50
MAX_PAGE = 200


@dataclass(frozen=True)
class Context:
    """What the handlers work with."""

    runs: Runs
    bases: Bases
    datasets: Datasets
    recipes: Path
    now: Callable[[], datetime]


@dataclass(frozen=True)
class Built:
    """A dataset as its event states it."""

    digest: str
    specialist: str
    kind: str
    manifest: Ref
    base: str
    recipe: str


def dataset_built(context: Context, built: Built) -> Run:
    """Queue the run that the specialist's recipe asks for; the same dataset again changes nothing.

    A recipe that cannot work on it makes a run that failed, so that whoever waits for it learns why.
    """
    try:
        recipe = load_recipe(built.recipe, context.recipes)
        _check_kind(recipe, built.kind)
    except InvalidArgument as error:
        return _keep(context, _new_run(context, built, "{}", f"unusable:{built.recipe}"), error)
    return _keep(context, _new_run(context, built, recipe.to_json(), recipe.digest), None)


def create_run(context: Context, specialist: str, dataset_digest: str, base: str, recipe_name: str) -> Run:
    """Queue a run, or find the one that exists. InvalidArgument for a wrong recipe, NotFound for an unknown dataset or base."""
    if not specialist or not dataset_digest or not base:
        raise InvalidArgument("MISSING_FIELD", "Name the specialist, the dataset and the base.")
    recipe = load_recipe(recipe_name, context.recipes)
    manifest, kind = context.datasets.manifest(dataset_digest)
    _check_kind(recipe, kind)
    if context.bases.find(base) is None:
        raise NotFound("NO_SUCH_BASE", f"There is no base {base!r}; add it first (`tailor models add`).", base=base)
    built = Built(dataset_digest, specialist, kind, manifest, base, recipe_name)
    return _keep(context, _new_run(context, built, recipe.to_json(), recipe.digest), None)


def _check_kind(recipe: Recipe, kind: str) -> None:
    if kind != recipe.method:
        raise InvalidArgument(
            "WRONG_DATASET_KIND",
            f"The method {recipe.method!r} learns from a dataset of kind 'sft', and this one is {kind!r}.",
            field_violations={"method": f"does not learn from {kind!r}"},
        )


def _new_run(context: Context, built: Built, recipe_json: str, recipe_digest: str) -> Run:
    key = RunKey(built.specialist, built.digest, built.base, recipe_digest)
    parts = (key.specialist, key.dataset_digest, key.base, key.recipe_digest)
    run_id = f"run_{uuid.uuid5(RUNS, chr(31).join(parts)).hex}"
    return Run(run_id, key, built.manifest, built.recipe, recipe_json, RunState.QUEUED, context.now())


def _keep(context: Context, run: Run, error: TailorError | None) -> Run:
    with context.runs.unit() as unit:
        if error is not None:
            run = fail(run, Failure(error.reason, error.message), context.now())
        if unit.add(run):
            if error is not None:
                unit.state_failure(run)
            return run
        existing = unit.get(run.run_id)
    return existing or run


def get_run(context: Context, run_id: str) -> Run:
    """A run; NotFound (NO_SUCH_RUN)."""
    run = context.runs.find(run_id)
    if run is None:
        raise NotFound("NO_SUCH_RUN", "There is no such run.", run_id=run_id)
    return run


def list_runs(context: Context, specialist: str, size: int, token: str) -> tuple[list[Run], str]:
    """A page of runs, newest first, and the next page's token. InvalidArgument for a token that is none."""
    size = min(size or DEFAULT_PAGE, MAX_PAGE)
    if size < 0:
        raise InvalidArgument("BAD_PAGE_SIZE", "page_size is from 0 to 200.")
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
        raise InvalidArgument("BAD_PAGE_TOKEN", "page_token is the next_page_token of an answer.") from None


def cancel_run(context: Context, run_id: str) -> Run:
    """End a run; its worker learns it with its next report, and the supervisor stops it."""
    with context.runs.unit() as unit:
        run = cancel(_locked(unit, run_id), context.now())
        unit.save(run)
        unit.state_failure(run)
    return run


def heartbeat(context: Context, run_id: str, epoch: int) -> bool:
    """Renew a lease; True where the worker must stop."""
    with context.runs.unit() as unit:
        run = _locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        unit.save(renew(run, epoch, context.now()))
    return False


def report_progress(context: Context, run_id: str, epoch: int, progress: Progress) -> bool:
    """Keep a report and renew the lease; True where the worker must stop."""
    now = context.now()
    with context.runs.unit() as unit:
        run = _locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        stated = due_for_event(run, progress, now)
        run = advance(renew(run, epoch, now), progress)
        unit.add_report(run, progress)
        if stated:
            unit.state_progress(run, progress)
            run = replace(run, last_event=now)
        unit.save(run)
    return False


def report_trained(context: Context, run_id: str, epoch: int, trained: Trained) -> bool:
    """End the run with its adapter, and state it. The same report again changes nothing."""
    with context.runs.unit() as unit:
        run = _locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        if run.state is RunState.SUCCEEDED and run.epoch == epoch and run.adapter_digest == trained.digest:
            return False
        run = succeed(renew(run, epoch, context.now()), trained, context.now())
        unit.save(run)
        unit.state_adapter(run, trained)
    return False


def report_failed(context: Context, run_id: str, epoch: int, failure: Failure) -> bool:
    """End a run that cannot succeed, and state it. The same report again changes nothing."""
    with context.runs.unit() as unit:
        run = _locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        if run.state is RunState.FAILED and run.epoch == epoch:
            return False
        run = fail(renew(run, epoch, context.now()), failure, context.now())
        unit.save(run)
        unit.state_failure(run)
    return False


def _told_to_stop(run: Run, epoch: int) -> bool:
    return run.state is RunState.CANCELLED and run.epoch == epoch


def _locked(unit: Unit, run_id: str) -> Run:
    run = unit.get(run_id)
    if run is None:
        raise NotFound("NO_SUCH_RUN", "There is no such run.", run_id=run_id)
    return run


def add_base(context: Context, name: str, source: str) -> Iterator[str | Base]:
    """Fetch a base; yields what is done, then the base."""
    if not SLUG.fullmatch(name):
        raise InvalidArgument("BAD_NAME", "A base's name is a slug: a-z, 0-9, '-' and '.', at most 63 characters.")
    return context.bases.add(name, source)


def list_bases(context: Context) -> list[Base]:
    """The bases, by name."""
    return context.bases.list()
