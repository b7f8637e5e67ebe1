"""The order to a worker: one JSON object, in a file or an environment variable, which the service writes and its worker reads."""

from dataclasses import dataclass

from pydantic import TypeAdapter

from services.training.domain import Job, Stage
from services.training.plans import Plan
from services.training.recipe import Recipe
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class WorkerSpec:
    """One stage of a run, as its worker needs it.

    `start_time` (ISO 8601) is when the run's first worker started. `parent` is the adapter to start from, `reward` the reward adapter
    that scores answers, and `held_out_reward` the second one; None if there is none. `hourly_price` is the price of the run's devices per
    hour.
    """

    run_id: str
    epoch: int
    specialist: str
    dataset_digest: str
    dataset_manifest: Ref
    base: str
    base_digest: str
    recipe: str
    recipe_json: str
    first_loss: float
    start_time: str
    stage: int = 0
    stages: int = 1
    parent: Ref | None = None
    reward: Ref | None = None
    held_out_reward: Ref | None = None
    hourly_price: float = 0.0
    currency: str = ""


SPEC = TypeAdapter(WorkerSpec)


def to_json(job: Job) -> str:
    """Serialise a job for its worker. Raises FailedPrecondition (NO_DATASET) if the stage has no dataset."""
    run, stage = job.run, job.run.current
    if stage.dataset is None:
        raise FailedPrecondition(Reason.NO_DATASET, "The stage has no dataset yet.", run_id=run.run_id)
    spec = WorkerSpec(
        run_id=run.run_id,
        epoch=run.epoch,
        specialist=run.key.specialist,
        dataset_digest=stage.dataset.sha256,
        dataset_manifest=stage.dataset,
        base=run.key.base,
        base_digest=job.base_digest,
        recipe=stage.recipe,
        recipe_json=_fit_recipe(stage, run.plan),
        first_loss=run.first_loss,
        start_time=run.start_time.isoformat() if run.start_time else "",
        stage=run.stage,
        stages=len(run.stages),
        parent=stage.parent,
        reward=stage.reward,
        held_out_reward=stage.held_out_reward,
        hourly_price=run.plan.hourly_price if run.plan else 0.0,
        currency=run.plan.price.currency if run.plan else "",
    )
    return SPEC.dump_json(spec).decode()


def _fit_recipe(stage: Stage, plan: Plan | None) -> str:
    """The stage's recipe with the settings that were planned for it."""
    settings = next((found for found in plan.settings if found.recipe == stage.recipe), None) if plan else None
    if settings is None:
        return stage.recipe_json
    recipe = Recipe.model_validate_json(stage.recipe_json).with_rate(settings.learning_rate)
    return recipe.with_steps(
        settings.tokens, settings.accumulation, checkpointing=settings.gradient_checkpointing
    ).to_json()


def from_json(text: str) -> WorkerSpec:
    """The inverse of `to_json`."""
    return SPEC.validate_json(text)
