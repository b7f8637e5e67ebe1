"""What `tailor demo` prints at its end: answers side by side, five lines of result, and what to do next; and its file of scores."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from rich.table import Table

from tailor.api.events.v1 import models_pb2
from tailor.cli.ask import ComparedAnswers
from tailor.cli.figures import describe_metric, estimates
from tailor.cli.next_commands import to_command
from tailor.cli.output import PlainConsole, bold, short
from tailor.cli.tables import item_table
from tailor.columns import columns
from tailor.list_columns import describe_estimate

# Titles of the models, in the order of the columns.
TITLES = {"base": "base", "few_shot": "base with examples", "incumbent": "serving before", "candidate": "tuned"}
# Wide enough for a row of scores on one line.
FILE_WIDTH = 400
REASON = "I read the report, and its answers are good enough"


def describe_result(figures: dict[str, Any], scores: Path) -> Iterator[Any]:
    """The answers and five lines of result. `scores` is the file with the others."""
    for answer in figures["answers"]:
        yield "", bold("Question", f" (draft {answer['draft_id']})"), answer["question"]
        texts = [("base", answer["base"]), ("base with examples", answer["few_shot"]), ("tuned", answer["tuned"])]
        yield ComparedAnswers(texts if answer["examples"] else [texts[0], texts[2]])
    yield _list_result(figures, scores)


def save_scores(file: Path, figures: dict[str, Any]) -> None:
    """Write every score and gain with its interval, and what the evaluation left out."""
    evaluation = json_format.ParseDict(figures["evaluation"], models_pb2.AdapterEvaluated())
    with file.open("w", encoding="utf-8") as text:
        console = PlainConsole(file=text, force_terminal=True, color_system=None, width=FILE_WIDTH)
        verdict = figures["verdict"]
        reasons = (f"{verdict['decision']}: {reason}" for reason in verdict["reasons"])
        console.show(scores_table(evaluation), "", gains_table(evaluation), "", reasons)
        console.show(_list_skipped(figures, evaluation))


def scores_table(evaluation: models_pb2.AdapterEvaluated) -> Table:
    """Each model's value of every metric and suite's measure with its 95 % interval."""
    figures = [*evaluation.metrics, *evaluation.suites]
    models = [model for model in TITLES if any(model in item.models for item in figures)]
    shown = columns(None, ("metric", describe_metric), *(estimates(TITLES[model], model) for model in models))
    return item_table(f"scores on {evaluation.rows} held-out rows, with 95 % intervals", shown, figures)


def gains_table(evaluation: models_pb2.AdapterEvaluated) -> Table:
    """What tuning gives, over each other model, and whether that is certain."""
    figures = [item for item in (*evaluation.metrics, *evaluation.suites) if item.gains]
    models = [model for model in TITLES if any(model in item.gains for item in figures)]
    shown = columns(
        models_pb2.MetricFigures,
        "metric",
        *((f"over {TITLES[model]}", lambda item, model=model: _describe_gain(item, model)) for model in models),
        ("rows", lambda item: max(gain.rows for gain in item.gains.values())),
    )
    return item_table("gains of the tuned model; positive is better", shown, figures)


def _describe_gain(item: models_pb2.MetricFigures, model: str) -> str:
    if model not in item.gains:
        return ""
    gain = item.gains[model]
    certain = "better, " if gain.low > 0 else "worse, " if gain.high < 0 else "not certain, "
    return certain + describe_estimate(gain, "+")


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
