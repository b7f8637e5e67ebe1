"""Runs side by side: the figures that their workers reported, step by step."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from services.console.domain import Visitor
from services.console.handlers import ServiceAnswer, ServiceFailure, call
from services.console.ports import RunReports, Services
from tailor.api.events.v1.models_pb2 import RunProgressed
from tailor.api.training.v1.training_pb2 import Run
from tailor.errors import InvalidArgument, Reason

MAX_RUNS = 6
# Field of a report and its name, in the order in which pages list them.
FIGURES = {
    "loss": "Training loss, nats per token",
    "held_out_loss": "Held-out loss, nats per token",
    "accuracy": "Pair accuracy",
    "reward": "Reward",
    "kl": "KL from the start of the stage, nats per token",
    "witness_reward": "Witness's reward",
    "witness_agreement": "Agreement of reward model and witness",
    "answer_tokens": "Tokens per answer",
    "truncated_share": "Answers cut off",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "tokens_per_second": "Tokens per second",
}
# Other methods than these may report everything but the optional figures.
ALWAYS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")


@dataclass(frozen=True)
class Curve:
    """One figure of one stage of a run, as (step, value) in the order of steps. `complete` is False if reading took too long."""

    run: Run
    points: tuple[tuple[int, float], ...]
    complete: bool = True


@dataclass(frozen=True)
class RunComparison:
    """The curves of some runs, and what else could be compared: methods of their stages, and figures that were reported for this method."""

    curves: tuple[Curve, ...] = ()
    method: str = ""
    figure: str = "loss"
    methods: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()


def compare_runs(
    services: Services, visitor: Visitor, run_ids: Iterable[str], method: str, figure: str
) -> ServiceAnswer[RunComparison]:
    """Compare a figure of the stages with this method; without one, of the first run's newest stage.

    Raises NotFound for a run that is unknown or not visible to the visitor, InvalidArgument for too many runs or an unknown figure.
    """
    ids = list(dict.fromkeys(run_ids))
    if len(ids) > MAX_RUNS:
        field = {"run": f"choose at most {MAX_RUNS}"}
        raise InvalidArgument(
            Reason.INVALID_REQUEST, f"At most {MAX_RUNS} runs fit one chart. Choose fewer.", field_violations=field
        )
    if figure not in FIGURES:
        field = {"figure": f"must be one of: {', '.join(FIGURES)}"}
        raise InvalidArgument(Reason.INVALID_REQUEST, "There is no such figure.", field_violations=field)
    for run_id in ids:
        answer = call("training", partial(services.training.get_run, run_id), None)
        if answer.failure:
            return ServiceAnswer(RunComparison(), answer.failure)
        if answer.value:
            visitor.require_specialist(answer.value.specialist)
    with ThreadPoolExecutor(max_workers=MAX_RUNS, thread_name_prefix="curves") as pool:
        answers = list(pool.map(lambda run_id: call("training", partial(_read, services, run_id), None), ids))
    reports = [answer.value for answer in answers if answer.value]
    failure: ServiceFailure | None = next((answer.failure for answer in answers if answer.failure), None)
    return ServiceAnswer(_compare(reports, method, figure), failure)


def _read(services: Services, run_id: str) -> RunReports | None:
    return services.training.read_reports(run_id)


def _compare(run_reports: list[RunReports], method: str, figure: str) -> RunComparison:
    methods = tuple(dict.fromkeys(stage.method for item in run_reports for stage in item.run.stages))
    if not method and run_reports and run_reports[0].run.stages:
        method = run_reports[0].run.stages[min(run_reports[0].run.stage, len(run_reports[0].run.stages) - 1)].method
    parts = [
        (item, [report for report in item.reports if _method_of(item.run, report) == method]) for item in run_reports
    ]
    reported = {name for _, reports in parts for report in reports for name in FIGURES if _has(report, name)}
    return RunComparison(
        tuple(Curve(item.run, read_curve(reports, figure), item.complete) for item, reports in parts),
        method,
        figure,
        methods,
        tuple(name for name in FIGURES if name in reported),
    )


def read_curve(reports: Iterable[RunProgressed], figure: str) -> tuple[tuple[int, float], ...]:
    """The figure by step. A worker that resumes from a checkpoint repeats steps; its values replace the earlier ones."""
    points = {report.step: float(getattr(report, figure)) for report in reports if _has(report, figure)}
    return tuple(sorted(points.items()))


def _has(report: RunProgressed, figure: str) -> bool:
    """True if the report measured the figure. Outside the training phase, workers report held-out measurements only."""
    if figure in ALWAYS:
        return report.step > 0 and report.phase == "training"
    return report.step > 0 and report.HasField(figure)  # type: ignore[arg-type]  # a name of FIGURES


def _method_of(run: Run, report: RunProgressed) -> str:
    return run.stages[report.stage].method if report.stage < len(run.stages) else ""
