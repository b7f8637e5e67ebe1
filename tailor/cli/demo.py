"""`tailor demo`: a company's documents become a specialised model, in one command."""

from pathlib import Path
from typing import Annotated

import typer

from tailor.cli.demo_page import describe_result, list_next_commands, list_remedies, save_scores
from tailor.cli.progress import ProgressReporter
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, Reason

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"


def demo(
    session: CommandSession,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    sample: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, help="Contains specialist.toml, documents/ and questions.json."),
    ] = SAMPLE,
) -> None:
    """Start the embedded stack, publish a sample corpus, train a specialist, and compare its answers with the base's.

    Everything shown comes from events and gRPC. The figures are written to `demo.json` in the state directory, the scores for people to
    `demo-scores.txt`. At the end, the stack is stopped and the commands to run next are printed. The exit status is 1 if the gate refuses
    the adapter or cannot decide. A repeated run publishes and trains only what is new. `tailor/demo.py` is the whole program.
    """
    from tailor.demo import read_sample, run_demo
    from tailor.local import stack

    material = read_sample(sample)
    state_dir, notes = session.connections.state_dir, session.output.notes
    specialist, scores = material.definition.name, state_dir / "demo-scores.txt"
    try:
        figures = run_demo(state_dir, material, ProgressReporter(notes))
        save_scores(scores, figures)
        session.output.emit(figures, describe_result(figures, scores))
    finally:
        if not keep:
            notes.print("\nStopping the stack ...")
            stack.down(state_dir)
    if figures["promoted"]:
        notes.show(list_next_commands(state_dir, specialist, figures, is_running=keep))
        return
    repeat = ["demo", *(() if sample == SAMPLE else ("--sample", str(sample)))]
    notes.show(list_remedies(state_dir, material.file, specialist, figures, repeat))
    decision = figures["verdict"]["decision"]
    raise FailedPrecondition(Reason.GATE_NOT_MET, f"The gate's verdict is {decision}; nothing was promoted.")
