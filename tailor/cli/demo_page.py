"""What `tailor demo` prints at its end: answers side by side, figures, what they leave out, and what to do next."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from tailor.api.events.v1 import models_pb2
from tailor.cli.ask import side_by_side
from tailor.cli.figures import describe
from tailor.cli.next_commands import to_command
from tailor.cli.output import short, table

# Titles of the models, in the order of the columns.
TITLES = {"base": "base", "few_shot": "base with examples", "incumbent": "serving before", "candidate": "tuned"}
REASON = "I read the report, and its answers are good enough"


def print_figures(console: Console, figures: dict[str, Any]) -> None:
    """Print the answers, the scores and the counts for people."""
    for answer in figures["answers"]:
        console.print(f"\n[bold]Question[/] (draft {answer['draft_id']})")
        console.print(answer["question"], markup=False, highlight=False)
        texts = [("base", answer["base"]), ("base with examples", answer["few_shot"]), ("tuned", answer["tuned"])]
        console.print(side_by_side(texts if answer["examples"] else [texts[0], texts[2]]))
    evaluation = json_format.ParseDict(figures["evaluation"], models_pb2.AdapterEvaluated())
    console.print(scores_table(evaluation))
    console.print(gains_table(evaluation))
    for reason in figures["verdict"]["reasons"]:
        console.print(f"{figures['verdict']['decision']}: {reason}", highlight=False, markup=False)
    print_lines(console, _list_left_out(figures, evaluation))
    console.print(_summary(figures), highlight=False, markup=False)


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


def _list_left_out(figures: dict[str, Any], evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    if figures["limits"] or evaluation.not_measured:
        yield "\nleft out, to keep the evaluation short; the sample's specialist.toml sets it in [evaluation]:"
    for limit in figures["limits"]:
        yield f"  {limit}"
    for name in sorted(evaluation.not_measured):
        yield f"  {name} was not measured: {evaluation.not_measured[name]}"


def _summary(figures: dict[str, Any]) -> str:
    dataset, run = figures["dataset"], figures["run"]
    rejected, values = sum(figures["documents_rejected"].values()), sum(figures["personal_data_found"].values())
    return (
        f"\nnew        {', '.join(figures['new']) or 'nothing since an earlier demo'}\n"
        f"documents  {figures['documents_published']} published, {figures['documents_anonymized']} anonymised, "
        f"{rejected} rejected, {values} personal values replaced, {figures['documents_unchanged']} unchanged\n"
        f"dataset    {short(dataset['digest'])}, {dataset['rows']} rows, {dataset['held_out']} held out\n"
        f"run        {run['steps']} steps in {run['seconds']:.0f} s, loss {run['first_loss']:.2f} to "
        f"{run['last_loss']:.2f}, {run['tokens_per_second']:.0f} tokens/s\n"
        f"adapter    {short(figures['adapter']['digest'])}, {'promoted' if figures['promoted'] else 'not promoted'}"
    )


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
    yield f"  {to_command(state_dir, 'adapters', '--specialist', specialist)}"
    yield "      shows the state of each adapter, and each reason"
    yield f"  {to_command(state_dir, 'evaluations', 'show', digest)}"
    yield "      shows what was measured, with intervals"
    if figures["verdict"]["decision"] == "undecided":
        yield f"  Raise `rows.max_held_out_rows` and `evaluation.max_rows` in {file}: more rows decide. Then"
    else:
        yield f"  Change `rows` or `gate` in {file}. Then"
    yield f"  {to_command(state_dir, 'specialist', 'update', str(file))}"
    yield "      applies the file"
    yield f"  {to_command(state_dir, 'build', specialist)}"
    yield "      after a change of `rows`: makes a new dataset, and a new adapter follows"
    yield f"  {to_command(state_dir, 'evaluate', digest)}"
    yield "      after a change of `evaluation`: measures again, and promotes the adapter if it passes"
    yield f"  {to_command(state_dir, 'promote', specialist, digest)}"
    yield "      after a change of `gate`: promotes the adapter if it passes now"
    yield f"  {to_command(state_dir, 'promote', specialist, digest, '--override', '--reason', REASON)}"
    yield "      promotes the adapter although it did not pass; the reason stays on record"
    yield f"  {to_command(state_dir, *repeat)}"
    yield "      repeats the demo; it publishes and trains only what is new"


def list_next_commands(state_dir: Path, specialist: str, figures: dict[str, Any]) -> Iterator[str]:
    """What to do with the running stack."""
    from tailor.local import stack

    place = stack.connection(state_dir)
    yield "\nThe stack is running. What you can do next:"
    yield f"  {to_command(state_dir, 'ask', specialist, 'Write a board summary about ...', '--compare')}"
    if figures["answers"]:
        yield f"  {to_command(state_dir, 'trace', figures['answers'][0]['draft_id'])}"
    yield f"  {place.console_url}  (the password is in {place.console_password_file})"
    yield f"  {to_command(state_dir, 'down')}"
