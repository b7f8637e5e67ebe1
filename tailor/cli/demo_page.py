"""What `tailor demo` prints at its end: answers side by side, five lines of result, and what to do next; and its file of scores."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from tailor.api.events.v1 import models_pb2
from tailor.cli.ask import print_answers
from tailor.cli.figures import describe
from tailor.cli.next_commands import to_command
from tailor.cli.output import PlainConsole, short, table

# Titles of the models, in the order of the columns.
TITLES = {"base": "base", "few_shot": "base with examples", "incumbent": "serving before", "candidate": "tuned"}
# Wide enough for a row of scores on one line.
FILE_WIDTH = 400
REASON = "I read the report, and its answers are good enough"


def print_result(console: Console, figures: dict[str, Any], scores: Path) -> None:
    """Print the answers and five lines of result. `scores` is the file with the others."""
    for answer in figures["answers"]:
        console.print(f"\n[bold]Question[/] (draft {answer['draft_id']})")
        console.print(answer["question"], markup=False, highlight=False)
        texts = [("base", answer["base"]), ("base with examples", answer["few_shot"]), ("tuned", answer["tuned"])]
        print_answers(console, texts if answer["examples"] else [texts[0], texts[2]])
    print_lines(console, _list_result(figures, scores))


def save_scores(file: Path, figures: dict[str, Any]) -> None:
    """Write every score and gain with its interval, and what the evaluation left out."""
    evaluation = json_format.ParseDict(figures["evaluation"], models_pb2.AdapterEvaluated())
    with file.open("w", encoding="utf-8") as text:
        console = PlainConsole(file=text, force_terminal=True, color_system=None, width=FILE_WIDTH)
        console.print(scores_table(evaluation))
        console.print()
        console.print(gains_table(evaluation))
        console.print()
        print_lines(
            console, (f"{figures['verdict']['decision']}: {reason}" for reason in figures["verdict"]["reasons"])
        )
        print_lines(console, _list_skipped(figures, evaluation))


def scores_table(evaluation: models_pb2.AdapterEvaluated) -> Table:
    """Each model's value of every metric and suite's measure with its 95 % interval."""
    figures = [*evaluation.metrics, *evaluation.suites]
    models = [model for model in TITLES if any(model in item.models for item in figures)]
    rows = [
        (_name(item), *(describe(item.models[model]) if model in item.models else "" for model in models))
        for item in figures
    ]
    title = f"scores on {evaluation.rows} held-out rows, with 95 % intervals"
    return table(title, ("metric", *(TITLES[model] for model in models)), rows)


def gains_table(evaluation: models_pb2.AdapterEvaluated) -> Table:
    """What tuning gives, over each other model, and whether that is certain."""
    figures = [item for item in (*evaluation.metrics, *evaluation.suites) if item.gains]
    models = [model for model in TITLES if any(model in item.gains for item in figures)]
    rows = [
        (
            item.metric,
            *(_describe_gain(item.gains[model]) if model in item.gains else "" for model in models),
            max(gain.rows for gain in item.gains.values()),
        )
        for item in figures
    ]
    columns = ("metric", *(f"over {TITLES[model]}" for model in models), "rows")
    return table("gains of the tuned model; positive is better", columns, rows)


def _describe_gain(gain: models_pb2.Estimate) -> str:
    certain = "better, " if gain.low > 0 else "worse, " if gain.high < 0 else "not certain, "
    return certain + describe(gain, "+")


def _name(item: models_pb2.MetricFigures) -> str:
    return item.metric + (" (lower is better)" if item.lower_is_better else "")


def _list_skipped(figures: dict[str, Any], evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    if figures["limits"] or evaluation.not_measured:
        yield "\nleft out, to keep the evaluation short; the sample's specialist.toml sets it in [evaluation]:"
    for limit in figures["limits"]:
        yield f"  {limit}"
    for name in sorted(evaluation.not_measured):
        yield f"  {name} was not measured: {evaluation.not_measured[name]}"


def _list_result(figures: dict[str, Any], scores: Path) -> Iterator[str]:
    dataset, run, verdict = figures["dataset"], figures["run"], figures["verdict"]
    rejected, values = sum(figures["documents_rejected"].values()), sum(figures["personal_data_found"].values())
    counts = f"{figures['documents_anonymized']} anonymised, {rejected} rejected, {values} personal values replaced"
    yield (
        f"\ndocuments  {figures['documents_published']} published, {counts}, {figures['documents_unchanged']} unchanged; "
        f"new: {', '.join(figures['new']) or 'nothing since an earlier demo'}"
    )
    yield f"dataset    {short(dataset['digest'])}, {dataset['rows']} rows, {dataset['held_out']} held out"
    yield (
        f"run        {run['steps']} steps in {run['seconds']:.0f} s, loss {run['first_loss']:.2f} to "
        f"{run['last_loss']:.2f}, {run['tokens_per_second']:.0f} tokens/s"
    )
    yield f"gate       {verdict['decision']}: {' '.join(verdict['reasons'])}"
    state = "promoted" if figures["promoted"] else "not promoted"
    yield f"adapter    {short(figures['adapter']['digest'])}, {state}; all scores with their intervals: {scores}"


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Print lines as they are, without breaking commands."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def list_remedies(
    state_dir: Path, file: Path, specialist: str, figures: dict[str, Any], repeat: Sequence[str] = ("demo",)
) -> Iterator[str]:
    """What to do after a refusal or an undecided verdict, with commands that work as they stand. `repeat` are this demo's arguments."""
    digest = short(figures["adapter"]["digest"])
    yield "\nNothing was promoted. What you can do next:"
    yield f"  {to_command(state_dir, 'up')}"
    yield "      starts the stack, if it does not run"
    yield f"  {to_command(state_dir, 'adapter', 'list', '--specialist', specialist)}"
    yield "      shows the state of each adapter, and each reason"
    yield f"  {to_command(state_dir, 'adapter', 'show', digest)}"
    yield "      shows what was measured, with intervals"
    if figures["verdict"]["decision"] == "undecided":
        yield f"  Raise `rows.max_held_out_rows` and `evaluation.max_rows` in {file}: more rows decide. Then"
    else:
        yield f"  Change `rows` or `gate` in {file}. Then"
    yield f"  {to_command(state_dir, 'specialist', 'update', str(file))}"
    yield "      applies the file"
    yield f"  {to_command(state_dir, 'build', specialist)}"
    yield "      after a change of `rows`: makes a new dataset, and a new adapter follows"
    yield f"  {to_command(state_dir, 'adapter', 'evaluate', digest)}"
    yield "      after a change of `evaluation`: measures again, and promotes the adapter if it passes"
    yield f"  {to_command(state_dir, 'adapter', 'promote', specialist, digest)}"
    yield "      after a change of `gate`: promotes the adapter if it passes now"
    yield f"  {to_command(state_dir, 'adapter', 'promote', specialist, digest, '--override', '--reason', REASON)}"
    yield "      promotes the adapter although it did not pass; the reason stays on record"
    yield f"  {to_command(state_dir, *repeat)}"
    yield "      repeats the demo; it publishes and trains only what is new"


def list_next_commands(state_dir: Path, specialist: str, figures: dict[str, Any], *, is_running: bool) -> Iterator[str]:
    """What to do after a promotion, with commands that work as they stand."""
    yield f"\nThe stack is {'running' if is_running else 'stopped, and its data is kept'}. What you can do next:"
    if not is_running:
        yield f"  {to_command(state_dir, 'up')}"
        yield "      starts it again in about a minute, as the commands below need it, and prints the console's address"
    yield f"  {to_command(state_dir, 'ask', specialist, 'Write a board summary about ...', '--compare')}"
    yield "      asks the specialist and its base"
    for answer in figures["answers"][:1]:
        yield f"  {to_command(state_dir, 'trace', answer['draft_id'])}"
        yield "      shows which documents, dataset and run are behind an answer"
    yield f"  {to_command(state_dir, 'adapter', 'show', short(figures['adapter']['digest']))}"
    yield "      shows what was measured, with intervals"
    yield f"  {to_command(state_dir, 'publish', 'PATH')}"
    yield "      publishes documents of your own; docs/publish.md says how a specialist learns from them"
    if is_running:
        yield from _list_places(state_dir)


def _list_places(state_dir: Path) -> Iterator[str]:
    from tailor.local import stack

    place = stack.connection(state_dir)
    yield f"  {place.console_url}"
    yield f"      is the console; the password is in {place.console_password_file}"
    yield f"  {to_command(state_dir, 'down')}"
    yield "      stops the stack"
