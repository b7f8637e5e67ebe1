"""`tailor evaluations`: show what was measured of an adapter, and compare what two models answered."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tailor.api.evaluation.v1 import evaluation_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.cli.adapters import AdapterName
from tailor.cli.calls import adapter_digest, unary
from tailor.cli.columns import item_table
from tailor.cli.figures import COSTS, describe, figures_table, print_adapter, print_definition, state_of
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, table
from tailor.cli.session import CommandSession
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
    item = unary("registry", registry.GetAdapter, registry_pb2.GetAdapterRequest(digest=digest)).adapter
    answer = evaluation_pb2.GetEvaluationResponse()
    if report or not item.HasField("evaluation"):
        request = evaluation_pb2.GetEvaluationRequest(adapter_digest=digest)
        answer = unary("evaluation", session.connections.evaluation.GetEvaluation, request)

    def render(console: Console) -> None:
        console.print(f"[bold]{short(digest)}[/] of {item.adapter.specialist}: {state_of(item.state)}", highlight=False)
        if item.HasField("evaluation"):
            console.print(figures_table(item.evaluation))
            console.print(item_table("answers", COSTS, item.evaluation.costs))
            print_definition(console, item.evaluation)
            for name, reason in sorted(item.evaluation.not_measured.items()):
                console.print(f"not measured: {name}: {reason}", highlight=False, markup=False, soft_wrap=True)
            print_adapter(console, item)
        else:
            console.print(_describe_progress(answer), highlight=False)
        if answer.report_markdown:
            console.print(answer.report_markdown, highlight=False, markup=False, soft_wrap=True)

    session.output.emit({"adapter": to_dict(item), "evaluation": to_dict(answer)}, render)


def _describe_progress(answer: evaluation_pb2.GetEvaluationResponse) -> str:
    state = short_enum(evaluation_pb2.EvaluationState, answer.state, "EVALUATION_STATE_")
    reason = f", {answer.reason}" if answer.reason else ""
    return f"evaluation {state}{reason}: {answer.rows_done} of {answer.rows_total} rows measured"


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
    answer = unary("evaluation", session.connections.evaluation.CompareEvaluations, request, COMPARE_SECONDS)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer, (first, second)))


def _model(registry: registry_pb2_grpc.RegistryServiceStub, name: str) -> evaluation_pb2.ComparedModel:
    adapter, _, model = name.partition(":")
    return evaluation_pb2.ComparedModel(adapter_digest=adapter_digest(registry, adapter), model=model)


def _print(console: Console, answer: evaluation_pb2.CompareEvaluationsResponse, names: tuple[str, str]) -> None:
    better = "lower is better" if answer.lower_is_better else "higher is better"
    columns = ("rows of", "rows", *names, f"gain of {names[1]}, 95 %")
    groups = [
        (_group(item), item.rows, describe(item.first), describe(item.second), describe(item.gain, "+"))
        for item in answer.groups
    ]
    console.print(table(f"{answer.metric} ({better})", columns, groups))
    for row in answer.rows:
        console.print()
        where = ", ".join(part for part in (row.task, row.language) if part)
        values = f"{row.first_value:.3f} to {row.second_value:.3f}, gain {row.gain:+.3f}"
        console.print(f"[bold]{row.row_id}[/] ({where}): {values}", highlight=False)
        console.print(Text(f"prompt: {row.prompt}", style="dim"))
        console.print(_answers(row))
    if answer.only_first or answer.only_second:
        console.print(
            f"Not compared: {answer.only_first} rows that only {names[0]} has, {answer.only_second} that only {names[1]} has."
        )
    if answer.next_page_token:
        console.print(f"More rows: --page {answer.next_page_token}")


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
