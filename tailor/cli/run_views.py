"""Runs, their plans and their reports, as text and tables for people."""

from collections.abc import Iterator
from typing import Any, Literal

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import pages
from tailor.cli.connections import Connections
from tailor.cli.figures import decision_of, describe_adapter
from tailor.cli.figures import state_of as adapter_state_of
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession
from tailor.cli.tables import Fields, item_table
from tailor.columns import Digest, columns, read
from tailor.pipelines import PipelineStage, learns_from_rankings, list_recipes

# Training plans in a separate process, which first loads heavy libraries.
PLAN_SECONDS = 330.0
SECONDS_PER_HOUR = 3600.0
PREFERENCE = models_pb2.DATASET_KIND_PREFERENCE


def forecast_run(connections: Connections, dataset: models_pb2.DatasetBuilt) -> training_pb2.RunPlan | None:
    """Plan the run of the specialist's pipeline on the dataset, as training does; None if the dataset starts no run.

    Raises TailorError. Blocks for seconds.
    """
    fields = find_run(connections, dataset)
    if fields is None:
        return None
    request = training_pb2.PlanRunRequest(**fields, started_by_dataset=True)
    return connections.training.PlanRun(request, timeout=PLAN_SECONDS).plan


def find_run(connections: Connections, dataset: models_pb2.DatasetBuilt) -> dict[str, Any] | None:
    """What the run of the pipeline learns from: the dataset, and the newest one of the other kind.

    None if the dataset starts no run: it has rankings, and there are no documents yet or the pipeline does not learn from rankings.
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
    return {
        "specialist": dataset.specialist,
        "dataset_digest": documents.digest,
        "base": dataset.base,
        "recipe": list_recipes(tuple(stage for stage in pipeline if rankings or not stage.learns_from_rankings)),
        "preference_dataset_digest": rankings.digest if rankings else "",
    }


def _find_newest(connections: Connections, specialist: str, *, ranked: bool) -> models_pb2.DatasetBuilt | None:
    datasets = pages(connections.registry.ListDatasets, registry_pb2.ListDatasetsRequest(specialist=specialist))
    return next((item for item in datasets if (item.kind == PREFERENCE) is ranked), None)


def describe_forecast(plan: training_pb2.RunPlan) -> str:
    """Tokens, hours and price of a run, and what to do if it does not start by itself."""
    devices = f" on {plan.devices} devices" if plan.devices > 1 else ""
    price = f", {plan.price.total:,.2f} {plan.price.currency}" if plan.price.total else ""
    text = f"Its run {plan.run_id} trains on {plan.tokens:,} tokens, all passes counted: "
    text += f"{plan.seconds / SECONDS_PER_HOUR:,.2f} h{devices}, {plan.seconds_from}{price}."
    text += "".join(f" {describe_settings(stage)}." for stage in plan.settings)
    end = describe_limit(plan) if plan.fits else f"It does not fit: {plan.refusal}"
    return f"{text} {end}".strip()


def describe_settings(stage: training_pb2.StageSettings) -> str:
    """What was planned for a stage: its rate and the size of its steps."""
    steps = f"{stage.accumulation} x {stage.tokens:,}" if stage.accumulation > 1 else f"{stage.tokens:,}"
    checkpointing = ", gradient checkpointing" if stage.gradient_checkpointing else ""
    return f"`{stage.recipe}` learns at {stage.learning_rate:.2g} in steps of {steps} tokens{checkpointing}"


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


GIB = 2**30
FAILED = (training_pb2.RUN_STATE_FAILED, training_pb2.RUN_STATE_CANCELLED)
MEASURED: tuple[Literal["reward", "kl", "accuracy", "held_out_loss"], ...] = (
    "reward",
    "kl",
    "accuracy",
    "held_out_loss",
)


def state_of(run: training_pb2.Run) -> str:
    """The run's state for people, such as `running`."""
    return str(read(run, "state"))


def describe(run: training_pb2.Run) -> str:
    """The run's progress in one line."""
    if run.state != training_pb2.RUN_STATE_RUNNING or not run.HasField("progress"):
        return " ".join(filter(None, (state_of(run), run.reason, run.message)))
    progress = run.progress
    stage = f"stage {progress.stage + 1}/{len(run.stages)}, " if len(run.stages) > 1 else ""
    if progress.phase != "training":
        return f"{stage}{progress.phase}"
    parts = [
        f"step {progress.step}/{progress.total_steps}",
        f"loss {progress.loss:.3f}",
        *(f"{name.replace('_', '-')} {getattr(progress, name):.3f}" for name in MEASURED if progress.HasField(name)),
        f"{progress.tokens_per_second:.0f} tokens/s",
        f"{max(0, round(progress.remaining_seconds))} s left",
    ]
    return stage + ", ".join(parts)


def describe_line(line: training_pb2.LogLine) -> str:
    """One line of a worker's log."""
    return f"{line.create_time.ToDatetime():%H:%M:%S} {line.level} {line.message}"


def emit_run(
    session: CommandSession, run: training_pb2.Run, adapter: registry_pb2.CatalogueAdapter | None = None
) -> None:
    """Write a run as the command's result, with the gate's verdict if its adapter is given."""
    verdict = {}
    if adapter is not None:
        verdict = {"gate": {"decision": decision_of(adapter.decision), "reasons": list(adapter.reasons)}}
    session.output.emit({**to_dict(run), **verdict}, _describe_run(run, adapter))


def _describe_run(run: training_pb2.Run, adapter: registry_pb2.CatalogueAdapter | None) -> Iterator[Any]:
    yield Fields(FACTS, run)
    if run.stages:
        yield item_table("", STAGES, [(number, run) for number in range(len(run.stages))])
    if run.HasField("plan"):
        yield item_table("", FIGURES, _figures(run.plan, run.report if run.HasField("report") else None))
        yield _describe_verdict(run.plan)
    if adapter is not None:
        yield f"adapter: {adapter_state_of(adapter.state)}"
        yield describe_adapter(adapter)


def emit_plan(
    session: CommandSession, plan: training_pb2.RunPlan, evaluation: registry_pb2.PlanEvaluationResponse
) -> None:
    """Write a plan, and what its evaluation can show, as the command's result."""
    session.output.emit(
        {**to_dict(plan), "evaluation": evaluation},
        item_table("", FIGURES.pick(", plan"), _figures(plan, None)),
        _describe_verdict(plan),
        describe_limit(plan) or None,
        (f"evaluation: {sentence}" for sentence in (evaluation.sentence, *evaluation.conditions)),
    )


def _describe_approval(run: training_pb2.Run) -> str:
    if not run.HasField("approve_time"):
        return ""
    return f"by {run.approved_by or 'the operator of the console'} at {run.approve_time.ToJsonString()}"


def _describe_number(row: tuple[int, training_pb2.Run]) -> str:
    number, run = row
    return f"{number + 1} <" if number == run.stage and run.state == training_pb2.RUN_STATE_RUNNING else f"{number + 1}"


def _describe_recipe(stage: training_pb2.RunStage) -> str:
    return stage.recipe if stage.recipe == stage.method else f"{stage.recipe} ({stage.method})"


FACTS = columns(
    training_pb2.Run,
    "run=run_id, specialist, dataset=dataset_digest, base, recipe, round=round or '', worker=epoch",
    ("state", describe),
    ("approved", _describe_approval),
    "adapter=adapter_digest",
)
STAGES = columns(
    None,
    ("stage", _describe_number),
    ("recipe", lambda row: _describe_recipe(row[1].stages[row[0]])),
    ("dataset", lambda row: Digest(row[1].stages[row[0]].dataset_digest)),
    ("parent", lambda row: Digest(row[1].stages[row[0]].parent_digest)),
    ("adapter", lambda row: Digest(row[1].stages[row[0]].adapter_digest)),
)


FIGURES = columns(None, "=0, plan=1, used=2, error=3")


def _figures(plan: training_pb2.RunPlan, used: training_pb2.RunReport | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield one row per figure: its name, the forecast, the actual value, and the forecast's relative error."""
    yield "rows", f"{plan.rows:,}", f"{used.rows:,}" if used else "-", ""
    if plan.rows_skipped or (used and used.rows_skipped):
        yield "rows left out", f"{plan.rows_skipped:,}", f"{used.rows_skipped:,}" if used else "-", ""
    yield "tokens", f"{plan.tokens:,}", f"{used.tokens:,}" if used else "-", _error(used and used.tokens_error)
    yield "steps", f"{plan.steps:,}", f"{used.steps:,}" if used else "-", ""
    memory = f"{plan.memory_bytes / GIB:.2f} of {plan.device_memory_bytes / GIB:.1f} GiB"
    yield "memory", memory, f"{used.memory_bytes / GIB:.2f} GiB" if used else "-", _error(used and used.memory_error)
    seconds = f"{plan.seconds:,.0f} s, {plan.seconds_from}"
    yield "time", seconds, f"{used.seconds:,.0f} s" if used else "-", _error(used and used.seconds_error)
    yield "price", _price(plan.price), _price(used.price) if used else "-", ""
    if plan.HasField("budget_left"):
        yield "left of the budget", f"{plan.budget_left:,.2f} {plan.price.currency} this month", "", ""
    yield "device", plan.device, "", ""
    if plan.max_hours:
        yield "approval", f"above {plan.max_hours:g} device hours", "", ""


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:+.0%}"


def _price(price: training_pb2.Price) -> str:
    components = (("compute", price.compute), ("teacher", price.teacher), ("annotation", price.annotation))
    parts = ", ".join(f"{name} {part:.2f}" for name, part in components if part)
    return f"{price.total:.2f} {price.currency}" + (f" ({parts})" if parts else "")


def _describe_verdict(plan: training_pb2.RunPlan) -> Iterator[str]:
    yield "fits" if plan.fits else f"does not fit: {plan.refusal}"
    if plan.nearest_recipe and not plan.fits:
        yield f"nearest recipe that fits: {plan.nearest_recipe}"
