"""`tailor evaluations`: show what was measured of an adapter, and compare what two models answered."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.calls import adapter_digest
from tailor.cli.figures import COSTS, describe_adapter, describe_definition, figures_table, state_of
from tailor.cli.options import AdapterName
from tailor.cli.output import bold, short
from tailor.cli.session import CommandSession
from tailor.cli.tables import item_table
from tailor.columns import columns, read
from tailor.list_columns import describe_estimate
from tailor.word_diff import Side, diff_words

COMPARE_SECONDS = 60.0
STYLES = {Side.BOTH: "", Side.FIRST: "red strike", Side.SECOND: "green underline"}

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER[:MODEL]",
        help="An adapter's digest or its first 6 digits, and a model of its evaluation, such as `:base`; the adapter itself without one.",
    ),
]


def show(
    session: CommandSession,
    adapter: AdapterName,
    *,
    report: Annotated[bool, typer.Option("--report", help="Also print the stored report, as Markdown.")] = False,
) -> None:
    """Show an adapter's newest evaluation: gains, scores and suites with 95 % intervals, costs of answers, goals and the verdict."""
    registry = session.connections.registry
    digest = adapter_digest(registry, adapter)
    item = registry.GetAdapter(registry_pb2.GetAdapterRequest(digest=digest)).adapter
    answer = evaluation_pb2.GetEvaluationResponse()
    if report or not item.HasField("evaluation"):
        request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
        answer = session.connections.evaluation.GetEvaluation(request)

    title = bold(short(digest), f" of {item.adapter.specialist}: {state_of(item.state)}")
    parts = _describe_evaluation(item) if item.HasField("evaluation") else _describe_progress(answer)
    session.output.emit({"adapter": item, "evaluation": answer}, title, parts, answer.report_markdown or None)


def _describe_evaluation(item: registry_pb2.CatalogueAdapter) -> Iterator[Any]:
    yield figures_table(item.evaluation)
    yield item_table("answers", COSTS, item.evaluation.costs)
    yield describe_definition(item.evaluation)
    for name, reason in sorted(item.evaluation.not_measured.items()):
        yield f"not measured: {name}: {reason}"
    yield describe_adapter(item)


def _describe_progress(answer: evaluation_pb2.GetEvaluationResponse) -> str:
    reason = f", {answer.reason}" if answer.reason else ""
    return f"evaluation {read(answer, 'state')}{reason}: {answer.rows_done} of {answer.rows_total} rows measured"


def compare(
    session: CommandSession,
    first: ModelName,
    second: ModelName,
    *,
    metric: Annotated[str, typer.Option(help="Order rows by this metric; by default, the first that both have.")] = "",
    task: Annotated[str, typer.Option(help="Only rows of this task.")] = "",
    language: Annotated[str, typer.Option(help="Only rows in this language, such as `de`.")] = "",
    rows: Annotated[int, typer.Option(min=1, max=50, help="Rows to show.")] = 3,
    page: Annotated[str, typer.Option(metavar="TOKEN", help="Continue where the previous call ended.")] = "",
) -> None:
    """Show by task and language how two models differ, and the rows that differ most, word by word.

    Each model is an adapter's newest evaluation, or another model of it, such as `3f2a9c:few_shot`.
    """
    registry = session.connections.registry
    request = evaluation_pb2.CompareEvaluationsRequest(
        first=_model(registry, first),
        second=_model(registry, second),
        metric=metric,
        task=task,
        language=language,
        page_size=rows,
        page_token=page,
    )
    answer = session.connections.evaluation.CompareEvaluations(request, timeout=COMPARE_SECONDS)
    session.output.emit(answer, _describe_comparison(answer, (first, second)))


def _model(registry: registry_pb2_grpc.RegistryServiceStub, name: str) -> evaluation_pb2.ComparedModel:
    adapter, _, model = name.partition(":")
    return evaluation_pb2.ComparedModel(adapter_digest=adapter_digest(registry, adapter), model=model)


def _describe_comparison(answer: evaluation_pb2.CompareEvaluationsResponse, names: tuple[str, str]) -> Iterator[Any]:
    better = "lower is better" if answer.lower_is_better else "higher is better"
    shown = columns(
        evaluation_pb2.GroupComparison,
        ("rows of", _group),
        "rows",
        (names[0], lambda item: describe_estimate(item.first)),
        (names[1], lambda item: describe_estimate(item.second)),
        (f"gain of {names[1]}, 95 %", lambda item: describe_estimate(item.gain, "+")),
    )
    yield item_table(f"{answer.metric} ({better})", shown, answer.groups)
    for row in answer.rows:
        where = ", ".join(part for part in (row.task, row.language) if part)
        values = f"{row.first_value:.3f} to {row.second_value:.3f}, gain {row.gain:+.3f}"
        yield "", bold(row.row_id, f" ({where}): {values}"), Text(f"prompt: {row.prompt}", style="dim"), _answers(row)
    if answer.only_first or answer.only_second:
        only = f"{answer.only_first} rows that only {names[0]} has, {answer.only_second} that only {names[1]} has"
        yield f"Not compared: {only}."
    if answer.next_page_token:
        yield f"More rows: --page {answer.next_page_token}"


def _group(item: evaluation_pb2.GroupComparison) -> str:
    return f"task {item.task}" if item.task else f"language {item.language}" if item.language else "all"


def _answers(row: evaluation_pb2.RowComparison) -> Text:
    """Words that only the first answer has are in `[-...-]`, those that only the second one has in `{+...+}`."""
    if not (row.HasField("first_answer") and row.HasField("second_answer")):
        return Text("not answered by both; only their references were scored", style="dim")
    text = Text()
    for piece in diff_words(row.first_answer, row.second_answer):
        opening, closing = {Side.FIRST: ("[-", "-]"), Side.SECOND: ("{+", "+}")}.get(piece.side, ("", ""))
        words = piece.text.rstrip()
        text.append(f"{opening}{words}{closing}{piece.text[len(words) :]}", STYLES[piece.side])
    return text
