"""`tailor demo`: a company's documents become a specialised model, in one command."""

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from rich.console import Console

from tailor.api.events.v1 import models_pb2
from tailor.cli.ask import side_by_side
from tailor.cli.figures import figures_table
from tailor.cli.output import short
from tailor.cli.session import session_of
from tailor.cli.story import Story
from tailor.errors import FailedPrecondition, Reason

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"

app = typer.Typer()


@app.command()
def demo(
    context: typer.Context,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    sample: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, help="Contains specialist.toml, documents/ and questions.json."),
    ] = SAMPLE,
) -> None:
    """Start the embedded stack, publish a sample corpus, train a specialist, and compare its answers with the base's.

    Everything shown comes from events and gRPC. The figures are written to `demo.json` in the state directory. The exit status is 1 if
    the gate refuses the adapter. On an unchanged corpus, a repeated run trains nothing. `tailor/demo.py` is the whole program.
    """
    from tailor.demo import read_sample, run_demo
    from tailor.local import stack

    session = session_of(context)
    material = read_sample(sample)
    state_dir, notes = session.connections.state_dir, session.output.notes
    try:
        figures = run_demo(state_dir, material, Story(notes))
    finally:
        if keep:
            notes.print("The stack keeps running; `tailor down` stops it.", markup=False)
        else:
            notes.print("Stopping the stack ...")
            stack.down(state_dir)

    def render(console: Console) -> None:
        print_figures(console, figures)
        if keep:
            console.print(
                _next_commands(state_dir, material.definition.name, figures),
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    session.output.emit(figures, render)
    if not figures["promoted"]:
        decision = figures["verdict"]["decision"]
        raise FailedPrecondition(Reason.GATE_NOT_MET, f"The gate's verdict is {decision}; nothing was promoted.")


def print_figures(console: Console, figures: dict[str, Any]) -> None:
    """Print the answers, the scores and the counts for people."""
    for answer in figures["answers"]:
        console.print(f"\n[bold]Question[/] (draft {answer['draft_id']})")
        console.print(answer["question"], markup=False, highlight=False)
        console.print(side_by_side([("base", answer["base"]), ("tuned", answer["tuned"])]))
    console.print(figures_table(json_format.ParseDict(figures["evaluation"], models_pb2.AdapterEvaluated())))
    for reason in figures["verdict"]["reasons"]:
        console.print(f"{figures['verdict']['decision']}: {reason}", highlight=False)
    console.print(_summary(figures), highlight=False)
    if figures["verdict"].get("advice") and not figures["promoted"]:
        advice = f"\nThe stack must run: `tailor up` starts it. What you can do: {figures['verdict']['advice']}"
        console.print(advice, highlight=False, markup=False, soft_wrap=True)


def _summary(figures: dict[str, Any]) -> str:
    dataset, run = figures["dataset"], figures["run"]
    rejected, values = sum(figures["documents_rejected"].values()), sum(figures["personal_data_found"].values())
    return (
        f"\ndocuments  {figures['documents_published']} published, {figures['documents_anonymized']} anonymised, "
        f"{rejected} rejected, {values} personal values replaced\n"
        f"dataset    {short(dataset['digest'])}, {dataset['rows']} rows, {dataset['held_out']} held out\n"
        f"run        {run['steps']} steps in {run['seconds']:.0f} s, loss {run['first_loss']:.2f} to "
        f"{run['last_loss']:.2f}, {run['tokens_per_second']:.0f} tokens/s\n"
        f"adapter    {short(figures['adapter']['digest'])}, {'promoted' if figures['promoted'] else 'not promoted'}"
    )


def _next_commands(state_dir: Path, specialist: str, figures: dict[str, Any]) -> str:
    from tailor.local import stack

    place = stack.connection(state_dir)
    option = "" if state_dir == Path(".tailor") else f" --state-dir {state_dir}"
    # Without a promotion nothing answers to the specialist's name, and there is no draft.
    asking = [
        line
        for answer in figures["answers"][:1]
        for line in (
            f'  tailor ask {specialist} "Write a board summary about ..." --compare{option}\n',
            f"  tailor trace {answer['draft_id']}{option}\n",
        )
    ]
    return (
        "\nThe stack is running. What you can do next:\n"
        f"{''.join(asking)}"
        f"  {place.console_url}  (the password is in {place.console_password_file})\n"
        f"  tailor down{option}"
    )
