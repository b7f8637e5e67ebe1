"""`tailor dataset list`: the datasets that exist, and what one of them has and leaves out."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.options import Limit, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages, item_table
from tailor.columns import columns
from tailor.list_columns import DATASETS, describe_over_redaction

SHARES = ("coverage", "grounded", "overlap")
IMPORTS = columns(registry_pb2.ImportCount, "import=name, licence, share=share_percent|{} %, source, rows")
LANGUAGES = columns(
    None,
    "language=0 or 'unknown', documents=1.documents, rows=1.rows",
    ("prompts from", lambda item: "templates" if item[1].has_templates else "source headings"),
)
SKIPPED = columns(None, "left out=0|words, documents=1.documents, rows=1.rows, characters=1.characters")
SHOWN = DATASETS.pick(
    "dataset, specialist, kind, rows, held out, documents, coverage, grounded, overlap, over-redaction, built"
)


@listed
def list_datasets(session: CommandSession, request: registry_pb2.ListDatasetsRequest, limit: Limit = 50) -> None:
    """List datasets, newest first."""
    emit_pages(session, session.connections.registry.ListDatasets, request, SHOWN, limit)


def show(
    session: CommandSession,
    dataset: Annotated[str, typer.Argument(help="The dataset's digest, or at least its first 6 digits.")],
) -> None:
    """Show a dataset's figures, and what it leaves out and why. `tailor document list --dataset` lists its documents."""
    answer = session.connections.registry.GetDataset(registry_pb2.GetDatasetRequest(digest=dataset))
    session.output.emit(answer, _describe(answer))


def describe_figures(dataset: models_pb2.DatasetBuilt) -> str:
    """The sources of a dataset, and its figures if it has any, as a sentence."""
    parts = [f"{dataset.documents} documents"] + [f"{dataset.judgements} judgements"] * bool(dataset.judgements)
    if dataset.HasField("figures"):
        parts += [f"{name} {getattr(dataset.figures, name):.1%}" for name in SHARES]
        parts += [f"over-redaction {describe_over_redaction(dataset.figures)}"]
    return f"{', '.join(parts)}."


def over_redaction_warning(figures: models_pb2.DatasetFigures) -> str:
    """A sentence for a dataset that is over the limit; empty for others."""
    if not 0 < figures.max_over_redaction < figures.over_redaction:
        return ""
    return (
        f"Warning: {figures.over_redaction:.2f} replacements per 1,000 words of its documents are of strings that occur in many documents "
        f"and are hardly personal; the limit is {figures.max_over_redaction:g}. `tailor review replaced` lists them; data protection may "
        "allow them."
    )


def _describe(answer: registry_pb2.GetDatasetResponse) -> Iterator[Any]:
    yield item_table("", SHOWN, [answer.dataset])
    tokens = f"{answer.train_tokens} tokens for training, {answer.held_out_tokens} held out"
    tokens += f", {answer.teacher_tokens} spent by the teacher" * bool(answer.teacher_tokens)
    yield f"{describe_figures(answer.dataset)} {tokens}."
    if warning := over_redaction_warning(answer.dataset.figures):
        yield Text(warning, style="yellow")
    if answer.imports:
        yield item_table("imports", IMPORTS, answer.imports)
    if answer.languages:
        yield item_table("languages", LANGUAGES, sorted(answer.languages.items()))
    skipped = sorted(answer.skipped.items(), key=lambda item: (-item[1].characters, item[0]))
    yield item_table("", SKIPPED, skipped) if skipped else "Nothing was left out."
