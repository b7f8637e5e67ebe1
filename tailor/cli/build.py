"""`tailor build`."""

import time
from collections.abc import Callable, Iterable
from typing import Annotated

import typer
from google.protobuf.message import Message
from rich.text import Text

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.api.training.v1 import training_pb2
from tailor.cli.datasets import describe_figures, over_redaction_warning
from tailor.cli.messages import to_dict
from tailor.cli.output import short
from tailor.cli.run_views import describe_forecast, forecast_run
from tailor.cli.session import CommandSession
from tailor.errors import Aborted, DeadlineExceeded, Reason, TailorError
from tailor.events.envelope import new_id
from tailor.values import DatasetKind

# Of one call, and of all calls until a build ends: 100,000 documents take about 15 minutes.
CALL_SECONDS, MAX_SECONDS = 300.0, 4 * 3600.0


def build(
    session: CommandSession,
    specialist: Annotated[str, typer.Argument(help="The specialist's name.")],
    kind: Annotated[
        DatasetKind, typer.Option(help="`sft`: from documents; `preference`: from experts' rankings.")
    ] = DatasetKind.SFT,
    again: Annotated[
        bool, typer.Option("--again", help="Make all rows again, as after `tailor verify` found a damaged file.")
    ] = False,
) -> None:
    """Build a specialist's dataset now, and forecast the run that follows by itself. If nothing is new, show the existing dataset.

    A run whose forecast is above a limit of hours waits for `tailor run approve`.
    """

    def report() -> None:
        session.output.note("still building; it continues if this command ends")

    answer = build_dataset(session.connections.synthetic, specialist, new_id("req"), kind, report, again=again)
    dataset = answer.dataset
    state = "built" if answer.created else "exists; nothing is new"
    text = f"Dataset {short(dataset.digest)} {state}. {dataset.train_rows} rows, {dataset.held_out_rows} held out."
    text += f" {describe_figures(dataset)}"
    if answer.skipped:
        text += f" Left out: {describe_skipped(answer.skipped)}."
    if kind is DatasetKind.PREFERENCE:
        text += f" Made from {', '.join(f'{count} {name}' for name, count in _counts(answer.pairs).items())}."
    plan = _forecast(session, dataset)
    if plan is not None:
        text += f"\n{describe_forecast(plan)}"
    document = {**to_dict(answer), "plan": to_dict(plan) if plan else None}
    session.output.emit(document, text)
    if warning := over_redaction_warning(dataset.figures):
        session.output.note(Text(warning, style="yellow"))


def _forecast(session: CommandSession, dataset: models_pb2.DatasetBuilt) -> training_pb2.RunPlan | None:
    """The forecast of the run that follows; None if no run follows, or with a note if there is no forecast yet."""
    try:
        return forecast_run(session.connections, dataset)
    except TailorError as error:
        session.output.note(f"No forecast of the run yet: {error.message}")
        return None


def build_dataset(
    synthetic: synthetic_pb2_grpc.SyntheticServiceStub,
    specialist: str,
    request_id: str,
    kind: DatasetKind = DatasetKind.SFT,
    on_wait: Callable[[], None] = lambda: None,
    *,
    again: bool = False,
) -> synthetic_pb2.BuildDatasetResponse:
    """Build a dataset, or get the existing one if nothing is new. Idempotent for a repeated request id.

    Blocks until the build ends, or one that already runs: a build that takes longer than a call is asked for again by its request id, for
    four hours at most. `on_wait` is called each time.
    """
    dataset_kind = models_pb2.DatasetKind.Value(f"DATASET_KIND_{kind.name}")
    request = synthetic_pb2.BuildDatasetRequest(
        specialist=specialist, request_id=request_id, kind=dataset_kind, again=again
    )
    end = time.monotonic() + MAX_SECONDS
    while True:
        try:
            return synthetic.BuildDataset(request, timeout=CALL_SECONDS)
        except (Aborted, DeadlineExceeded) as error:
            if not _is_running(error) or time.monotonic() > end:
                raise
            on_wait()


def _is_running(error: TailorError) -> bool:
    return isinstance(error, DeadlineExceeded) or error.reason == Reason.BUILD_RUNNING


def describe_skipped(counts: Iterable[synthetic_pb2.Skipped]) -> str:
    """Reasons and counts of the text that a dataset leaves out, the most characters first; `nothing` if there is none."""
    ordered = sorted(counts, key=lambda count: (-count.characters, -count.rows, count.reason))
    return "; ".join(map(_describe_reason, ordered)) or "nothing"


def _describe_reason(count: synthetic_pb2.Skipped) -> str:
    """One reason with its counts other than 0, such as `max rows per document 120 rows, 9,000 characters`."""
    units = (("documents", count.documents), ("rows", count.rows), ("characters", count.characters))
    amounts = ", ".join(f"{number:,} {name}" for name, number in units if number)
    return f"{count.reason.replace('_', ' ')} {amounts}".strip()


def _counts(message: Message) -> dict[str, int]:
    """The counts other than 0, by name."""
    return {name.replace("_", " "): count for name, count in to_dict(message).items() if count}
