"""From what is asked for to a run: its stages, its id, and what they may learn from."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.training.domain import PREFERENCE, SFT, Adapter, Dataset, Run, RunKey, RunState, Stage
from services.training.recipe import FROM_PREFERENCES, NamedRecipe, digest_of, load_stages
from services.training.shapes import check_shape
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.ref import Ref

# The namespace of run ids: the same key gives the same id on every replica.
RUNS = uuid.UUID("0f3b7a52-4c0e-5d43-9a7e-6f1b2f9d3c10")
SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Wanted:
    """A run that is asked for. Empty where it starts from the base, and where it waits for rankings or needs none."""

    specialist: str
    dataset_digest: str
    base: str
    recipe: str
    parent_digest: str = ""
    preference_dataset_digest: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Found:
    """What stands behind the names of a run that is asked for."""

    dataset: Dataset
    preferences: Dataset | None = None
    parent: Adapter | None = None


def make_run(wanted: Wanted, found: Found, recipes: Path, now: datetime) -> Run:
    """The run. InvalidArgument (UNKNOWN_RECIPE, INVALID_RECIPE, WRONG_SPECIALIST, WRONG_DATASET_KIND) where it could not work."""
    named = load_stages(wanted.recipe, recipes)
    parent = found.parent.manifest if found.parent else None
    _check_chain(named, found.parent)
    _check_specialist(wanted, found)
    kinds = [PREFERENCE if one.recipe.method in FROM_PREFERENCES else SFT for one in named]
    _check_kinds(wanted.recipe, kinds, found)
    refs = {PREFERENCE: found.preferences.manifest if found.preferences else None}
    refs[found.dataset.kind] = found.dataset.manifest
    stages = tuple(
        Stage(
            recipe=one.name,
            method=one.recipe.method,
            recipe_json=one.recipe.to_json(),
            learns_from=kind,
            dataset=refs[kind],
            parent=parent if number == 0 else None,
            all_weights=one.recipe.adapter.kind == "none",
            wants_reward=any(rule.kind == "model" for rule in one.recipe.rewards),
        )
        for number, (one, kind) in enumerate(zip(named, kinds, strict=True))
    )
    return _run(wanted, digest_of(named), stages, parent, now)


def unusable_run(wanted: Wanted, dataset: Dataset, now: datetime) -> Run:
    """A run to fail: what is asked for could not work, and whoever waits for it has to learn why."""
    stage = Stage(wanted.recipe, "", "{}", dataset.kind, dataset.manifest)
    return _run(wanted, f"unusable:{wanted.recipe}", (stage,), None, now)


def _run(wanted: Wanted, recipe_digest: str, stages: tuple[Stage, ...], parent: Ref | None, now: datetime) -> Run:
    key = RunKey(
        wanted.specialist,
        wanted.dataset_digest,
        wanted.base,
        recipe_digest,
        wanted.parent_digest,
        wanted.preference_dataset_digest,
    )
    return Run(
        run_id_of(key), key, wanted.recipe, stages, RunState.QUEUED, now, parent=parent, priority=wanted.priority
    )


def run_id_of(key: RunKey) -> str:
    """The run's id, which follows from its key."""
    parts = [key.specialist, key.dataset_digest, key.base, key.recipe_digest]
    if key.parent_digest or key.preference_dataset_digest:
        parts += [key.parent_digest, key.preference_dataset_digest]
    return f"run_{uuid.uuid5(RUNS, SEPARATOR.join(parts)).hex}"


def check_parent(wanted: Wanted, parent: Adapter) -> None:
    """FailedPrecondition (WRONG_PARENT) where a run of this specialist and base cannot start from the adapter."""
    wrong = ""
    if parent.kind != "policy":
        wrong = f"is of kind {parent.kind!r}, and only a policy is trained further"
    elif parent.weights == "full":
        wrong = "is all weights; add it as a base (`tailor models add NAME adapter:DIGEST`) and train on that"
    elif parent.base != wanted.base:
        wrong = f"was trained on the base {parent.base!r}, not on {wanted.base!r}"
    elif parent.specialist != wanted.specialist:
        wrong = f"was made for the specialist {parent.specialist!r}"
    if wrong:
        raise FailedPrecondition(Reason.WRONG_PARENT, f"The parent {wrong}.", parent_digest=wanted.parent_digest)


def _check_chain(named: tuple[NamedRecipe, ...], parent: Adapter | None) -> None:
    """Each stage goes on from the last policy before it, and has its shape."""
    full = [one.name for one in named if one.recipe.adapter.kind == "none"]
    if full and (parent is not None or len(named) > 1):
        raise InvalidArgument(
            Reason.INVALID_RECIPE,
            f"The recipe {full[0]!r} trains all weights, which no adapter stands on and which stand on none. Use it alone, add what it "
            "makes as a base (`tailor models add NAME adapter:DIGEST`), and train on that.",
            field_violations={"adapter.kind": "trains all weights within a chain"},
        )
    shape = parent.shape if parent is not None else None
    for one in named:
        if shape is not None:
            check_shape(one.recipe, shape)
        if one.recipe.method != "reward":
            shape = one.recipe.adapter.model_dump(mode="json")


def _check_specialist(wanted: Wanted, found: Found) -> None:
    for dataset in filter(None, (found.dataset, found.preferences)):
        if dataset.specialist != wanted.specialist:
            raise InvalidArgument(
                Reason.WRONG_SPECIALIST,
                f"The dataset was built for the specialist {dataset.specialist!r}, not for {wanted.specialist!r}.",
                field_violations={"specialist": "not the dataset's"},
            )


def _check_kinds(recipe: str, kinds: list[str], found: Found) -> None:
    kind, wrong = found.dataset.kind, ""
    if kind not in kinds:
        wrong = f"The recipe {recipe!r} learns from a dataset of kind {kinds[0]!r}, and this one is {kind!r}."
    elif kind == PREFERENCE and SFT in kinds:
        wrong = f"The recipe {recipe!r} has a stage that learns from a dataset of kind 'sft': name that one, and this one as preferences."
    elif found.preferences is not None and kind == PREFERENCE:
        wrong = "The dataset is of kind 'preference' itself; name no second one."
    elif found.preferences is not None and PREFERENCE not in kinds:
        wrong = f"No stage of the recipe {recipe!r} learns from a preference dataset; name none."
    elif found.preferences is not None and found.preferences.kind != PREFERENCE:
        wrong = f"The preference dataset is of kind {found.preferences.kind!r}."
    if wrong:
        raise InvalidArgument(Reason.WRONG_DATASET_KIND, wrong, field_violations={"dataset": "of the wrong kind"})
