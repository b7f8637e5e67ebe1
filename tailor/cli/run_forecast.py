"""The forecast of the run that a new dataset starts."""

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import Connections
from tailor.pipelines import PipelineStage, learns_from_rankings, list_recipes

# Training plans in a separate process, which first loads heavy libraries.
PLAN_SECONDS = 330.0
SECONDS_PER_HOUR = 3600.0
PREFERENCE = models_pb2.DATASET_KIND_PREFERENCE


def forecast_run(connections: Connections, dataset: models_pb2.DatasetBuilt) -> training_pb2.RunPlan | None:
    """Plan the run of the specialist's pipeline on the dataset and the newest one of the other kind, as training does.

    None if the dataset starts no run: it has rankings, and there are no documents yet or the pipeline does not learn from rankings.
    Raises TailorError. Blocks for seconds.
    """
    is_ranked = dataset.kind == PREFERENCE
    pipeline = tuple(PipelineStage(stage.stage, stage.recipe) for stage in dataset.pipeline)
    is_learning = learns_from_rankings(pipeline)
    if is_ranked and not is_learning:
        return None
    other = _find_newest(connections, dataset.specialist, ranked=not is_ranked) if is_learning else None
    documents, rankings = (other, dataset) if is_ranked else (dataset, other)
    if documents is None:
        return None
    request = training_pb2.PlanRunRequest(
        specialist=dataset.specialist,
        dataset_digest=documents.digest,
        base=dataset.base,
        recipe=list_recipes(tuple(stage for stage in pipeline if rankings or not stage.learns_from_rankings)),
        preference_dataset_digest=rankings.digest if rankings else "",
        started_by_dataset=True,
    )
    return connections.training.PlanRun(request, timeout=PLAN_SECONDS).plan


def _find_newest(connections: Connections, specialist: str, *, ranked: bool) -> models_pb2.DatasetBuilt | None:
    datasets = pages(connections.registry.ListDatasets, registry_pb2.ListDatasetsRequest(specialist=specialist))
    return next((item for item in datasets if (item.kind == PREFERENCE) is ranked), None)


def describe_forecast(plan: training_pb2.RunPlan) -> str:
    """Tokens, hours and price of a run, and what to do if it does not start by itself."""
    devices = f" on {plan.devices} devices" if plan.devices > 1 else ""
    price = f", {plan.price.total:,.2f} {plan.price.currency}" if plan.price.total else ""
    text = f"Its run {plan.run_id} trains on {plan.tokens:,} tokens, all passes counted: "
    text += f"{plan.seconds / SECONDS_PER_HOUR:,.2f} h{devices}, {plan.seconds_from}{price}."
    end = describe_limit(plan) if plan.fits else f"It does not fit: {plan.refusal}"
    return f"{text} {end}".strip()


def describe_limit(plan: training_pb2.RunPlan) -> str:
    """If the forecast is above its limit, the command that starts the run and a setting that fits; else empty."""
    if not plan.needs_approval:
        return ""
    unit = "device hours" if plan.devices > 1 else "h"
    text = f"That is above the limit of {plan.max_hours:g} {unit}: it waits until `tailor run approve {plan.run_id}`."
    if not plan.fitting_train_tokens:
        return text
    return (
        f"{text} To make it fit, set `max_train_tokens = {plan.fitting_train_tokens:_}` under `[rows]` in the specialist's definition with "
        "`tailor specialist update FILE`, and build again."
    )
