"""What others wrote does not command the terminal of the person who reads it."""

import io

import pytest
from rich.text import Text

from tailor.cli.output import Output, PlainConsole, plain, print_error, table
from tailor.cli.whole_words import share_width
from tailor.errors import InvalidArgument, Reason

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


def test_a_row_is_one_line_without_a_terminal() -> None:
    lines = show(40, False)
    assert lines == ["runs", "\t".join(COLUMNS), "\t".join(ROWS[0])]


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


@pytest.mark.parametrize(
    ("least", "natural", "room", "widths"),
    [([4, 4], [4, 20], 24, [4, 20]), ([4, 4], [4, 20], 14, [4, 10]), ([9, 2], [30, 30], 22, [11, 11])],
)
def test_the_widest_columns_shrink_first(least: list[int], natural: list[int], room: int, widths: list[int]) -> None:
    assert share_width(least, natural, room) == widths


def test_a_sentence_without_a_terminal_is_one_line() -> None:
    file = io.StringIO()
    PlainConsole(file=file, width=40).print("a " * 60)
    assert len(file.getvalue().splitlines()) == 1


def show(width: int, is_terminal: bool) -> list[str]:
    file = io.StringIO()
    console = PlainConsole(file=file, width=width, force_terminal=is_terminal, color_system=None)
    console.print(table("runs", COLUMNS, ROWS))
    return [line.rstrip() for line in file.getvalue().splitlines()]
