"""What is printed: layouts of lists and tables, and texts of others that do not command the terminal."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from rich.text import Text

from tailor.api.training.v1 import training_pb2
from tailor.cli.calls import list_field
from tailor.cli.connections import Connections
from tailor.cli.output import Output, OutputFormat, PlainConsole, plain, print_error, table
from tailor.cli.session import CommandSession
from tailor.cli.tables import Fields, emit_list, list_table
from tailor.columns import columns
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.methods import all_methods
from tests.unit.cli.conftest import Tailor

# Writes to the clipboard, clears the screen, and begins a sequence by one character.
HOSTILE = "a\x1b]52;c;ZXZpbA==\x1b\\b\x1b[2Jc\x9b2Jd\r"


def test_control_characters_of_texts_do_not_reach_the_terminal() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, highlight=False, force_terminal=True, color_system="standard", width=80)
    console.print(HOSTILE)
    console.print(Text(HOSTILE))
    console.print(table("Keys", ["name"], [[HOSTILE]]))
    assert file.getvalue().count("a\ufffd]52;c;ZXZpbA==\ufffd\\b\ufffd[2Jc\ufffd2Jd") == 3
    assert "\x1b]" not in file.getvalue() and "\x1b[2J" not in file.getvalue() and "\x9b" not in file.getvalue()


def test_the_commands_own_styles_still_work() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, color_system="standard")
    console.print("[bold]done[/]")
    assert file.getvalue() == "\x1b[1mdone\x1b[0m\n"


def test_an_answer_that_is_shown_piece_by_piece_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    Output().write("one two\n\x1b[2J")
    assert capsys.readouterr().out == "one two\n\ufffd[2J"


def test_an_error_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InvalidArgument(Reason.INVALID_KEY, "no \x1b[2J", field_violations={"name": "\x9b1m"}))
    assert capsys.readouterr().err == "error: INVALID_KEY: no \ufffd[2J\n  name: \ufffd1m\n"


def test_other_texts_stay_as_they_are() -> None:
    assert plain("Ngozi Okafor\n\t£12 – naïve 日本") == "Ngozi Okafor\n\t£12 – naïve 日本"


RUN = "run_cf7774db7ba1569d0dc557a0f1e028f0"
COLUMNS = ("run", "specialist", "metric", "at")
ROWS = [(RUN, "engagement-reports", "safety.refusal_preference", "step 3/74, loss 2.345, 57 tokens/s, 3500 s left")]


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_ids_and_names_are_never_broken_in_a_table(width: int, is_terminal: bool) -> None:
    lines = show(width, is_terminal)
    for word in (*COLUMNS, *" ".join(ROWS[0]).split()):
        assert any(word in line.split() for line in lines), (word, lines)


def test_a_terminal_that_is_too_narrow_gets_a_line_for_each_column() -> None:
    lines = show(80, True)
    assert [line.split(maxsplit=1) for line in lines[1:5]] == [
        list(pair) for pair in zip(COLUMNS, ROWS[0], strict=True)
    ]


def test_long_cells_wrap_between_words_where_the_words_fit() -> None:
    lines = show(120, True)
    assert len(lines) > 3 and max(map(len, lines)) <= 120
    assert " ".join(line.strip() for line in (lines[2][100:], lines[3])).strip().endswith("left")


def test_a_cell_of_too_many_lines_gets_a_list_too() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=40, force_terminal=True, color_system=None)
    console.print(table("", ("name", "remark"), [("alpha", "word " * 60), ("beta", "short")]))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[0].split() == ["name", "alpha"]
    assert [line.split() for line in lines[-3:-1]] == [["name", "beta"], ["remark", "short"]]


def test_a_sentence_without_a_terminal_is_one_line() -> None:
    file = io.StringIO()
    PlainConsole(file=file, width=40).print("a " * 60)
    assert len(file.getvalue().splitlines()) == 1


def show(width: int, is_terminal: bool) -> list[str]:
    file = io.StringIO()
    console = PlainConsole(file=file, width=width, force_terminal=is_terminal, color_system=None)
    console.print(table("runs", COLUMNS, ROWS))
    return [line.rstrip() for line in file.getvalue().splitlines()]


DIGEST = "ab" * 32
SHOWN = columns(
    training_pb2.Run,
    "run=run_id, dataset=dataset_digest, state, stage=progress.step, approved=approve_time, message",
)


def run() -> training_pb2.Run:
    item = training_pb2.Run(
        run_id="run_1", dataset_digest=DIGEST, state=training_pb2.RUN_STATE_RUNNING, message="a\nb\tc"
    )
    item.progress.step = 7
    item.approve_time.FromSeconds(1_800_000_000)
    return item


def console(*, is_terminal: bool) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=200, force_terminal=is_terminal, color_system=None)


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
    terminal.print(list_table(SHOWN.pick("dataset"), [training_pb2.Run()]))
    assert terminal.file.getvalue().split()[-1] == "-"  # type: ignore[attr-defined]


def test_one_item_has_a_line_for_each_field_that_is_set() -> None:
    pipe = console(is_terminal=False)
    pipe.show(Fields(SHOWN.pick("run, dataset"), training_pb2.Run(run_id="run_1", dataset_digest=DIGEST)))
    assert pipe.file.getvalue() == f"run\trun_1\ndataset\t{DIGEST}\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("form", "load"), [(OutputFormat.JSON, json.loads), (OutputFormat.YAML, yaml.safe_load)])
def test_programs_get_every_field(
    form: OutputFormat, load: Callable[[str], Any], connections: Connections, capsys: pytest.CaptureFixture[str]
) -> None:
    emit_list(CommandSession(Output(form), connections), [run()], SHOWN, document={"runs": [run()]})
    document = load(capsys.readouterr().out)
    assert document["runs"][0]["progress"]["step"] == 7 and document["runs"][0]["dataset_digest"] == DIGEST


def test_remarks_and_an_empty_list_leave_standard_output_to_items(tailor: Tailor) -> None:
    shown = tailor("document", "list")
    assert len(shown.out.splitlines()) == 2 and "ingested 3" in shown.err


def test_a_method_that_lists_has_one_list_by_which_its_items_are_named() -> None:
    methods = [method for method in all_methods() if method.name.startswith("List")]
    paged = [method for method in methods if "next_page_token" in method.output_type.fields_by_name]
    assert {method.name: list_field(method.output_type) for method in paged}["ListRuns"] == "runs"
