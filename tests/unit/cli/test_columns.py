"""Lists: the cells of a field by its type, and what goes where with and without a terminal."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from rich.console import Console

from tailor.api.training.v1 import training_pb2
from tailor.cli.columns import columns, emit_items, list_table, print_fields
from tailor.cli.connections import Connections
from tailor.cli.output import Output, OutputFormat, PlainConsole
from tailor.cli.session import CommandSession
from tests.unit.cli.conftest import Tailor

DIGEST = "ab" * 32
SHOWN = columns(
    "run=run_id", "dataset=dataset_digest", "state", "stage=progress.step", "approved=approve_time", "message"
)


def run() -> training_pb2.Run:
    item = training_pb2.Run(
        run_id="run_1", dataset_digest=DIGEST, state=training_pb2.RUN_STATE_RUNNING, message="a\nb\tc"
    )
    item.progress.step = 7
    item.approve_time.FromSeconds(1_800_000_000)
    return item


def console(*, is_terminal: bool) -> Console:
    return PlainConsole(file=io.StringIO(), width=200, force_terminal=is_terminal, color_system=None)


def test_a_field_is_shown_by_its_type() -> None:
    assert [str(column.cell(run())) for column in SHOWN] == [
        "run_1", DIGEST[:12], "running", "7", "2027-01-15 08:00:00", "a\nb\tc",
    ]  # fmt: skip
    assert [str(column.cell(training_pb2.Run(state=99))) for column in SHOWN[:5]] == ["", "-", "unknown 99", "0", ""]  # type: ignore[arg-type]


def test_without_a_terminal_an_item_is_one_line_of_whole_values_between_tabs() -> None:
    pipe = console(is_terminal=False)
    pipe.print(list_table(SHOWN, [run(), run()]))
    line = f"run_1\t{DIGEST}\trunning\t7\t2027-01-15 08:00:00\ta b c"
    assert pipe.file.getvalue() == f"{line}\n{line}\n"  # type: ignore[attr-defined]


def test_a_terminal_gets_headings_and_the_first_digits() -> None:
    terminal = console(is_terminal=True)
    terminal.print(list_table(SHOWN, [run()]))
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert text.split()[:3] == ["run", "dataset", "state"]
    assert DIGEST[:12] in text and DIGEST not in text


def test_one_item_has_a_line_for_each_field_that_is_set() -> None:
    pipe = console(is_terminal=False)
    print_fields(pipe, training_pb2.Run(run_id="run_1", dataset_digest=DIGEST), SHOWN[:2])
    assert pipe.file.getvalue() == f"run\trun_1\ndataset\t{DIGEST}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("form", "load"), [(OutputFormat.JSON, json.loads), (OutputFormat.YAML, yaml.safe_load)])
def test_programs_get_every_field(
    form: OutputFormat, load: Callable[[str], Any], connections: Connections, capsys: pytest.CaptureFixture[str]
) -> None:
    emit_items(CommandSession(Output(form), connections), "runs", [run()], SHOWN)
    document = load(capsys.readouterr().out)
    assert document["runs"][0]["progress"]["step"] == 7 and document["runs"][0]["dataset_digest"] == DIGEST


def test_remarks_and_an_empty_list_leave_standard_output_to_items(tailor: Tailor) -> None:
    shown = tailor("document", "list")
    assert len(shown.out.splitlines()) == 2 and "ingested 3" in shown.err
    nothing = tailor("event", "dead", "--service", "training")
    assert nothing.out == "" or "\t" in nothing.out
