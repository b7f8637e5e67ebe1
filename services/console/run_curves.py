"""Runs side by side: the figures that their workers reported, step by step."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from services.console.clients import Services
from services.console.domain import Visitor
from services.console.handlers import ServiceAnswer, ServiceFailure, call
from services.console.reads import find_run
from tailor.api.events.v1.models_pb2 import RunProgressed
from tailor.api.training.v1.training_pb2 import Run, WatchRunRequest, WatchRunResponse
from tailor.errors import DeadlineExceeded, InvalidArgument, Reason, Unavailable
from tailor.rpc.channel import CallStream

MAX_RUNS = 6
# Replaying the reports of a run with thousands of steps takes about a second.
REPORTS_SECONDS = 6
MAX_REPORTS = 20_000
# Field of a report and its name, in the order in which pages list them.
FIGURES = {
    "loss": "Training loss, nats per token",
    "held_out_loss": "Held-out loss, nats per token",
    "accuracy": "Pair accuracy",
    "reward": "Reward",
    "kl": "KL from the start of the stage, nats per token",
    "held_out_reward": "Held-out reward",
    "held_out_agreement": "Agreement of both reward models",
    "answer_tokens": "Tokens per answer",
    "truncated_share": "Answers cut off",
    "unanswered_share": "Thoughts without an answer",
    "learning_rate": "Learning rate",
    "gradient_norm": "Gradient norm",
    "tokens_per_second": "Tokens per second",
}
# Other methods than these may report everything but the optional figures.
ALWAYS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")


@dataclass(frozen=True)
class RunReports:
    """A run and its workers' reports in the order in which they came. `complete` is False if reading took too long."""

    run: Run
    reports: tuple[RunProgressed, ...] = ()
    complete: bool = True


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
        answer = call("training", partial(find_run, services, run_id), None)
        if answer.failure:
            return ServiceAnswer(RunComparison(), answer.failure)
        if answer.value:
            visitor.require_specialist(answer.value.specialist)
    with ThreadPoolExecutor(max_workers=MAX_RUNS, thread_name_prefix="curves") as pool:
        answers = list(pool.map(partial(_try_reports, services), ids))
    reports = [answer.value for answer in answers if answer.value]
    failure: ServiceFailure | None = next((answer.failure for answer in answers if answer.failure), None)
    return ServiceAnswer(_compare(reports, method, figure), failure)


def _try_reports(services: Services, run_id: str) -> ServiceAnswer[RunReports | None]:
    return call("training", lambda: read_reports(services, run_id), None)


def read_reports(services: Services, run_id: str) -> RunReports:
    """The run with the reports of its workers so far. Raises NotFound."""
    stream: CallStream[WatchRunResponse] = services.training.WatchRun(
        WatchRunRequest(run_id=run_id), timeout=REPORTS_SECONDS
    )
    run: Run | None = None
    reports: list[RunProgressed] = []
    try:
        for update in stream:
            if run is None:
                run = update.run
            elif not update.log_lines:
                reports.append(update.run.progress)
            # The stream of a run that lasts goes on after its newest report.
            if not run.HasField("progress") or len(reports) == MAX_REPORTS:
                break
            if reports and _is_same(reports[-1], run.progress):
                break
    except DeadlineExceeded:
        if run is None:
            raise
        return RunReports(run, tuple(reports), complete=False)
    finally:
        stream.cancel()
    if run is None:
        raise Unavailable(Reason.UNAVAILABLE, "training ended the stream of a run before its first message.")
    return RunReports(run, tuple(reports), complete=len(reports) < MAX_REPORTS)


def _is_same(first: RunProgressed, second: RunProgressed) -> bool:
    names = ("epoch", "stage", "step", "phase", "create_time")
    return all(getattr(first, name) == getattr(second, name) for name in names)


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
