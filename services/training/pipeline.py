"""Runs of specialists' pipelines: a new dataset of either kind makes one run on it and the newest dataset of the other kind."""

from collections.abc import Container
from dataclasses import dataclass, replace
from datetime import datetime

from services.training.adapters.manifests import read_document_ids
from services.training.adapters.sql import SqlRuns, SqlUnit
from services.training.domain import (
    PREFERENCE,
    SFT,
    Dataset,
    Failure,
    NewestDataset,
    Run,
    TrainedAdapter,
)
from services.training.handlers import TrainingPorts, insert_run, make_plan, resolve_run
from services.training.new_run import RunRequest, RunSources, make_run, make_unusable_run
from services.training.plans import Plan
from services.training.transitions import assign_rankings, fail, reuse_stage, supersede
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError
from tailor.logging import get_logger
from tailor.pipelines import Pipeline, list_recipes
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

# A sweep is sft with trials.
METHODS = {"sweep": SFT}


@dataclass(frozen=True)
class BuiltDataset:
    """A dataset as its event describes it, with the specialist's pipeline at that time."""

    digest: str
    specialist: str
    kind: str
    manifest: Ref
    base: str
    pipeline: Pipeline
    create_time: datetime


def queue_run_for_dataset(
    ports: TrainingPorts, built: BuiltDataset, erased: Container[str] = frozenset()
) -> Run | None:
    """Queue the run of the specialist's pipeline on a new dataset and the newest dataset of the other kind. Idempotent.

    Stages that learn from rankings are left out until there are any; without documents there is no run. A dataset that is not the newest of
    its kind, or has an erased document, makes none. Runs of the pipeline that still wait are superseded. A pipeline that cannot work
    makes a failed run, so that its reason can be looked up. A preference dataset also goes to every run that waits for one.
    """
    if has_erased_document(ports.store, built.manifest, erased):
        log.info("dataset skipped: one of its documents is erased", dataset=built.digest)
        return None
    datasets = _record(ports.runs, built)
    if built.kind == PREFERENCE:
        _assign_rankings(ports.runs, built)
    datasets = {
        kind: dataset
        for kind, dataset in datasets.items()
        if dataset.digest == built.digest or not has_erased_document(ports.store, dataset.manifest, erased)
    }
    stages = tuple(stage for stage in built.pipeline if PREFERENCE in datasets or not stage.learns_from_rankings)
    wanted = {PREFERENCE if stage.learns_from_rankings else SFT for stage in stages}
    if SFT not in datasets or built.kind not in wanted or datasets[built.kind].digest != built.digest:
        log.info("dataset makes no run", specialist=built.specialist, kind=built.kind, dataset=built.digest)
        return None
    return _queue(ports, built, stages, datasets)


def plan_pipeline(ports: TrainingPorts, request: RunRequest) -> Plan:
    """Forecast the run that a dataset starts: without the first stage if an earlier run has trained it. Stores nothing.

    Raises like `create_run`, but a run that does not fit is a valid answer. Blocks for seconds.
    """
    run, base = resolve_run(ports, request)
    with ports.runs.unit() as unit:
        run = _take_over(unit, run)
    return make_plan(ports, run, base)


def has_erased_document(store: ObjectStore, manifest: Ref, erased: Container[str]) -> bool:
    """True if a document behind the dataset's rows is erased, or the dataset was deleted, which only an erasure does. Blocks."""
    try:
        return any(document_id in erased for ids in read_document_ids(store, manifest) for document_id in ids)
    except NotFound:
        return True


def _record(runs: SqlRuns, built: BuiltDataset) -> dict[str, NewestDataset]:
    """Record the dataset if none of its kind is newer. Returns the specialist's newest ones by kind."""
    with runs.unit() as unit:
        unit.save_newest(NewestDataset(built.specialist, built.kind, built.manifest, built.create_time))
        return {dataset.kind: dataset for dataset in unit.newest_datasets(built.specialist)}


def _assign_rankings(runs: SqlRuns, built: BuiltDataset) -> None:
    """Give the dataset to every run of the specialist that waits for one."""
    with runs.unit() as unit:
        for run in unit.active():
            if run.key.specialist == built.specialist and run.lacks_rankings:
                unit.save(assign_rankings(run, built.manifest))


def _queue(ports: TrainingPorts, built: BuiltDataset, stages: Pipeline, datasets: dict[str, NewestDataset]) -> Run:
    sft, preferences = datasets[SFT], datasets.get(PREFERENCE)
    ranked = preferences if any(stage.learns_from_rankings for stage in stages) else None
    request = RunRequest(
        built.specialist,
        sft.digest,
        built.base,
        list_recipes(stages),
        preference_dataset_digest=ranked.digest if ranked else "",
    )
    dataset = Dataset(sft.manifest, SFT, built.specialist)
    try:
        sources = RunSources(dataset, Dataset(ranked.manifest, PREFERENCE, built.specialist) if ranked else None)
        thinking = built.specialist in ports.thinking
        run = make_run(request, sources, ports.recipes, ports.now(), thinking=thinking)
        _check_methods(run, stages)
    except TailorError as error:
        if error.retryable:
            raise
        run = make_unusable_run(request, dataset, ports.now())
        return insert_run(ports.runs, fail(run, Failure(error.reason, error.message), ports.now()))
    run = replace(run, is_pipeline=True, round=ranked.number if ranked else 0)
    with ports.runs.unit() as unit:
        return _insert(unit, run, ports.now())


def _check_methods(run: Run, stages: Pipeline) -> None:
    """Raise InvalidArgument (INVALID_RECIPE) if a stage's recipe has another method, or has stages."""
    wrong = ""
    if len(run.stages) != len(stages):
        wrong = f"A recipe of {list_recipes(stages)!r} has stages. Name them in the specialist's `stages` instead."
    for stage, run_stage in zip(stages, run.stages, strict=False):
        method = run_stage.kind if run_stage.makes_held_out_reward else METHODS.get(run_stage.method, run_stage.method)
        if method != stage.stage:
            wrong = wrong or f"The stage {stage.stage!r} names the recipe {stage.recipe!r}, whose method is {method!r}."
    if wrong:
        raise InvalidArgument(Reason.INVALID_RECIPE, wrong, field_violations={"stages": wrong})


def _insert(unit: SqlUnit, run: Run, now: datetime) -> Run:
    """Insert the run, with the first stage of an earlier run if that was the same, and supersede those that wait."""
    started = _take_over(unit, run)
    if not unit.add(started):
        return unit.get(run.run_id)
    for waiting in unit.active():
        if waiting.is_pipeline and waiting.is_waiting and _is_superseded(waiting, started):
            ended = supersede(waiting, started.run_id, now)
            unit.save(ended)
            unit.publish_failure(ended)
    return started


def _take_over(unit: SqlUnit, run: Run) -> Run:
    """The run with the first stage of an earlier run if that was the same."""
    earlier = _find_first_stage(unit, run)
    return reuse_stage(run, earlier) if earlier else run


def _is_superseded(waiting: Run, run: Run) -> bool:
    return waiting.run_id != run.run_id and waiting.key.specialist == run.key.specialist


def _find_first_stage(unit: SqlUnit, run: Run) -> TrainedAdapter | None:
    """The result of the same first stage in an earlier run of the specialist, if its adapter still exists and another stage follows."""
    first = run.stages[0]
    if len(run.stages) == 1 or first.dataset is None:
        return None
    for earlier in unit.learning_from(run.key.specialist, first.dataset.sha256):
        other = earlier.stages[0]
        same = (other.recipe_json, other.dataset, other.parent) == (first.recipe_json, first.dataset, first.parent)
        if same and earlier.key.base == run.key.base and other.result and unit.has_adapter(other.result.digest):
            return other.result
    return None
