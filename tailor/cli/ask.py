"""`tailor ask`: ask a specialist, and optionally the base for comparison."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from tailor.cli.calls import CALLERS_SERVICE, calling
from tailor.cli.output import Output, bold
from tailor.cli.session import CommandSession
from tailor.client import Piece, TailorClient

BASE = "base"


def ask(
    session: CommandSession,
    specialist: Annotated[str, typer.Argument(help="The specialist's name, or `base`.")],
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    compare: Annotated[bool, typer.Option("--compare", help="Also show the base's answer.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Max tokens to generate.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, max=2.0, help="0 always takes the most likely token.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Makes sampling repeatable; 0 for no seed.")] = 0,
) -> None:
    """Ask a specialist. What is not set is as its definition says.

    The answer appears as it is generated; Ctrl-C also stops the generation on the server. A thought that the specialist shows goes to
    standard error."""
    names = (BASE, specialist) if compare else (specialist,)
    given = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    sampling = {name: value for name, value in given.items() if value is not None}
    answers: list[dict[str, Any]] = []
    with session.connections.client() as client:
        for name in names:
            if compare:
                session.output.note(bold(name))
            answers.append(_stream(client, session.output, name, prompt, **sampling))
    document = {"answers": answers} if compare else answers[0]
    session.output.emit(document, _describe(answers))


def _stream(client: TailorClient, output: Output, name: str, prompt: str, **sampling: Any) -> dict[str, Any]:
    thought = text = ""
    last = Piece("", "")
    with calling("inference", f"{CALLERS_SERVICE}/StreamGenerate"):
        for last in client.stream(name, prompt, **sampling):
            if last.thought:
                output.write_aside(last.thought if thought else f"[thought] {last.thought}")
                thought += last.thought
            if last.text and thought and not text:
                output.write_aside("\n[answer]\n")
            text += last.text
            output.write(last.text)
    output.write("\n")
    return {
        "model": name,
        "thought": thought,
        "text": text,
        "draft_id": last.draft_id,
        "finish_reason": last.finish_reason,
        "usage": vars(last.usage) if last.usage else None,
        "provenance": vars(last.provenance) if last.provenance else None,
    }


def _describe(answers: list[dict[str, Any]]) -> Iterator[Any]:
    if len(answers) > 1:
        yield ComparedAnswers([(answer["model"], answer["text"]) for answer in answers])
    for answer in answers:
        yield Text(f"draft {answer['draft_id']} of {answer['model']}", style="dim")


class ComparedAnswers:
    """Texts, each under its name: next to each other on a terminal, one after the other elsewhere."""

    def __init__(self, answers: list[tuple[str, str]]) -> None:
        self._answers = answers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not console.is_terminal:
            for name, text in self._answers:
                yield Text(f"[{name}]\n{text.strip()}")
            return
        result = Table(expand=True, show_lines=True)
        for name, _ in self._answers:
            result.add_column(name, ratio=1, overflow="fold")
        result.add_row(*(Text(text.strip()) for _, text in self._answers))
        yield result
