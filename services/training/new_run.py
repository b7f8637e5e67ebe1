"""From a request to a run: its stages, its id, and the checks that it can work."""

import uuid
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from services.training.domain import PREFERENCE, SFT, Adapter, Dataset, Run, RunKey, RunState, Stage
from services.training.recipe import FROM_PREFERENCES, NamedRecipe, check_shape, digest_stages, load_stages
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.ref import Ref

# The namespace of run ids: the same key gives the same id on every replica.
RUNS = uuid.UUID("0f3b7a52-4c0e-5d43-9a7e-6f1b2f9d3c10")
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class RunRequest:
    """A requested run. An empty `parent_digest` means the base; an empty `preference_dataset_digest` means none, or wait for one."""

    specialist: str
    dataset_digest: str
    base: str
    recipe: str
    parent_digest: str = ""
    preference_dataset_digest: str = ""
    priority: int = 0


@dataclass(frozen=True)
class RunSources:
    """The datasets and the parent that a request names."""

    dataset: Dataset
    preferences: Dataset | None = None
    parent: Adapter | None = None


def make_run(request: RunRequest, sources: RunSources, recipes: Path, now: datetime, *, thinking: bool = False) -> Run:
    """Build the run; with `thinking`, its rollouts begin with a thought.

    Raises InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE, WRONG_SPECIALIST, WRONG_DATASET_KIND) if it cannot work.
    """
    named = load_stages(request.recipe, recipes)
    if thinking:
        named = tuple(replace(stage, recipe=stage.recipe.with_thinking()) for stage in named)
    parent = sources.parent.manifest if sources.parent else None
    _check_chain(named, sources.parent)
    _check_specialist(request, sources)
    kinds = [PREFERENCE if stage.recipe.method in FROM_PREFERENCES else SFT for stage in named]
    _check_kinds(request.recipe, kinds, sources)
    refs = {PREFERENCE: sources.preferences.manifest if sources.preferences else None}
    refs[sources.dataset.kind] = sources.dataset.manifest
    stages = tuple(
        Stage(
            recipe=stage.name,
            method=stage.recipe.method,
            recipe_json=stage.recipe.to_json(),
            learns_from=kind,
            dataset=refs[kind],
            parent=parent if number == 0 else None,
            all_weights=stage.recipe.adapter.kind == "none",
            wants_reward=any(rule.kind == "model" for rule in stage.recipe.rewards),
            makes_held_out_reward=stage.recipe.held_out_reward is not None,
        )
        for number, (stage, kind) in enumerate(zip(named, kinds, strict=True))
    )
    return _run(request, digest_stages(named), stages, parent, now)


def make_unusable_run(request: RunRequest, dataset: Dataset, now: datetime) -> Run:
    """A run that is going to fail, so that its reason can be looked up: the request cannot work."""
    stage = Stage(request.recipe, "", "{}", dataset.kind, dataset.manifest)
    # The column of the recipe's digest has 128 characters.
    return _run(request, f"unusable:{request.recipe}"[:128], (stage,), None, now)


def _run(request: RunRequest, recipe_digest: str, stages: tuple[Stage, ...], parent: Ref | None, now: datetime) -> Run:
    key = RunKey(
        specialist=request.specialist,
        dataset_digest=request.dataset_digest,
        base=request.base,
        recipe_digest=recipe_digest,
        parent_digest=request.parent_digest,
        preference_dataset_digest=request.preference_dataset_digest,
    )
    return Run(
        derive_run_id(key),
        key,
        request.recipe,
        stages,
        RunState.QUEUED,
        now,
        parent=parent,
        priority=request.priority,
    )


def derive_run_id(key: RunKey) -> str:
    """The run's id: a UUIDv5 of its key."""
    parts = [key.specialist, key.dataset_digest, key.base, key.recipe_digest]
    if key.parent_digest or key.preference_dataset_digest:
        parts += [key.parent_digest, key.preference_dataset_digest]
    return f"run_{uuid.uuid5(RUNS, SEPARATOR.join(parts)).hex}"


def check_parent(request: RunRequest, parent: Adapter) -> None:
    """Raise FailedPrecondition (WRONG_PARENT) if a run of this specialist and base cannot start from the adapter."""
    wrong = ""
    if parent.kind != "policy":
        wrong = f"is of kind {parent.kind!r}; only a policy can be trained further"
    elif parent.weights == "full":
        wrong = "has all weights; add it as a base (`tailor model add NAME adapter:DIGEST`) and train on that"
    elif parent.base != request.base:
        wrong = f"was trained on the base {parent.base!r}, not on {request.base!r}"
    elif parent.specialist != request.specialist:
        wrong = f"belongs to the specialist {parent.specialist!r}"
    if wrong:
        raise FailedPrecondition(Reason.WRONG_PARENT, f"The parent {wrong}.", parent_digest=request.parent_digest)


def _check_chain(named: tuple[NamedRecipe, ...], parent: Adapter | None) -> None:
    """Each stage continues the last policy before it, and must have its shape."""
    full = [stage.name for stage in named if stage.recipe.adapter.kind == "none"]
    if full and (parent is not None or len(named) > 1):
        raise InvalidArgument(
            Reason.INVALID_RECIPE,
            f"The recipe {full[0]!r} trains all weights. It cannot continue an adapter, and no stage can continue it. Run it by "
            "itself, add the result as a base (`tailor model add NAME adapter:DIGEST`), and train on that.",
            field_violations={"adapter.kind": "trains all weights within a chain"},
        )
    shape = parent.shape if parent is not None else None
    for stage in named:
        if shape is not None:
            check_shape(stage.recipe, shape)
        if stage.recipe.method != "reward":
            shape = stage.recipe.adapter.model_dump(mode="json")


def _check_specialist(request: RunRequest, sources: RunSources) -> None:
    for dataset in filter(None, (sources.dataset, sources.preferences)):
        if dataset.specialist != request.specialist:
            raise InvalidArgument(
                Reason.WRONG_SPECIALIST,
                f"The dataset was built for the specialist {dataset.specialist!r}, not for {request.specialist!r}.",
                field_violations={"specialist": "is not the dataset's"},
            )


def _check_kinds(recipe: str, kinds: list[str], sources: RunSources) -> None:
    kind, wrong = sources.dataset.kind, ""
    if kind not in kinds:
        wrong = f"The recipe {recipe!r} learns from a dataset of kind {kinds[0]!r}, but this one is of kind {kind!r}."
    elif kind == PREFERENCE and SFT in kinds:
        wrong = (
            f"The recipe {recipe!r} has a stage that learns from a dataset of kind 'sft'. Name that one as the dataset, and this one "
            "as the preference dataset."
        )
    elif sources.preferences is not None and kind == PREFERENCE:
        wrong = "The dataset is of kind 'preference'. Do not name a second one."
    elif sources.preferences is not None and PREFERENCE not in kinds:
        wrong = f"No stage of the recipe {recipe!r} learns from a preference dataset. Do not name one."
    elif sources.preferences is not None and sources.preferences.kind != PREFERENCE:
        wrong = f"The preference dataset is of kind {sources.preferences.kind!r}."
    if wrong:
        raise InvalidArgument(Reason.WRONG_DATASET_KIND, wrong, field_violations={"dataset": "has the wrong kind"})
