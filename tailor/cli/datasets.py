"""`tailor dataset list`: the datasets that exist, and what one of them has and leaves out."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.calls import first, pages, unary
from tailor.cli.columns import ShownField, columns, emit_items, item_table
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession

SHARES = ("coverage", "grounded", "overlap")
IMPORTS = columns("import=name", "licence", ("share", lambda item: f"{item.share_percent} %"), "source", "rows")
LANGUAGES = columns(
    ("language", lambda item: item[0] or "unknown"),
    ("documents", lambda item: item[1].documents),
    ("rows", lambda item: item[1].rows),
    ("prompts from", lambda item: "templates" if item[1].has_templates else "source headings"),
)
SKIPPED = columns(
    ("left out", lambda item: item[0].replace("_", " ")),
    *((name, lambda item, name=name: getattr(item[1], name)) for name in ("documents", "rows", "characters")),
)


def list_datasets(
    session: CommandSession,
    specialist: Annotated[str, typer.Option(help="List only datasets of this specialist.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Max datasets to list.")] = 50,
) -> None:
    """List datasets, newest first."""
    request = registry_pb2.ListDatasetsRequest(specialist=specialist)
    items = first(limit, pages("registry", session.connections.registry.ListDatasets, request, "datasets"))
    emit_items(session, "datasets", items, COLUMNS)


def show(
    session: CommandSession,
    dataset: Annotated[str, typer.Argument(help="The dataset's digest, or at least its first 6 digits.")],
) -> None:
    """Show a dataset's figures, and what it leaves out and why. `tailor document list --dataset` lists its documents."""
    request = registry_pb2.GetDatasetRequest(digest=dataset)
    answer = unary("registry", session.connections.registry.GetDataset, request)
    session.output.emit(to_dict(answer), lambda console: _print(console, answer))


def describe_figures(dataset: models_pb2.DatasetBuilt) -> str:
    """The sources of a dataset, and its figures if it has any, as a sentence."""
    parts = [f"{dataset.documents} documents"] + [f"{dataset.judgements} judgements"] * bool(dataset.judgements)
    if dataset.HasField("figures"):
        parts += [f"{name} {getattr(dataset.figures, name):.1%}" for name in SHARES]
        parts += [f"over-redaction {over_redaction(dataset.figures)}"]
    return f"{', '.join(parts)}."


def over_redaction(figures: models_pb2.DatasetFigures) -> str:
    """The figure per 1,000 words, with the limit if it is over it; `unknown` if it was not measured."""
    if not figures.max_over_redaction:
        return "unknown"
    text = f"{figures.over_redaction:.2f}"
    return f"{text} (limit {figures.max_over_redaction:g})" if is_over_redacted(figures) else text


def is_over_redacted(figures: models_pb2.DatasetFigures) -> bool:
    return 0 < figures.max_over_redaction < figures.over_redaction


def over_redaction_warning(figures: models_pb2.DatasetFigures) -> str:
    """A sentence for a dataset that is over the limit; empty for others."""
    if not is_over_redacted(figures):
        return ""
    return (
        f"Warning: {figures.over_redaction:.2f} replacements per 1,000 words of its documents are of strings that occur in many documents "
        f"and are hardly personal; the limit is {figures.max_over_redaction:g}. `tailor review replaced` lists them; data protection may "
        "allow them."
    )


def _figure(name: str) -> ShownField:
    return ShownField(name, lambda item: f"{getattr(item.figures, name):.1%}" if item.HasField("figures") else "")


COLUMNS = (
    *columns("dataset=digest", "specialist", "kind", "rows=train_rows", "held out=held_out_rows", "documents"),
    *map(_figure, SHARES),
    ShownField("over-redaction", lambda item: over_redaction(item.figures) if item.HasField("figures") else ""),
    *columns("built=create_time"),
)


def _describe_closed_book(closed_book: registry_pb2.ClosedBookCounts) -> str:
    left = (
        f"{closed_book.beyond_limit} documents are beyond the limit, {closed_book.without_questions} give no question"
    )
    return f"ClosedBook: {closed_book.questions} questions about {closed_book.documents} documents; {left}."


def _print(console: Console, answer: registry_pb2.GetDatasetResponse) -> None:
    console.print(item_table("", COLUMNS, [answer.dataset]))
    tokens = f"{answer.train_tokens} tokens for training, {answer.held_out_tokens} held out"
    tokens += f", {answer.teacher_tokens} spent by the teacher" * bool(answer.teacher_tokens)
    console.print(f"{describe_figures(answer.dataset)} {tokens}.", highlight=False)
    if warning := over_redaction_warning(answer.dataset.figures):
        console.print(warning, style="yellow", highlight=False)
    if answer.HasField("closed_book"):
        console.print(_describe_closed_book(answer.closed_book), highlight=False)
    if answer.imports:
        console.print(item_table("imports", IMPORTS, answer.imports))
    if answer.languages:
        console.print(item_table("languages", LANGUAGES, sorted(answer.languages.items())))
    skipped = sorted(answer.skipped.items(), key=lambda item: (-item[1].characters, item[0]))
    console.print(item_table("", SKIPPED, skipped) if skipped else "Nothing was left out.")
