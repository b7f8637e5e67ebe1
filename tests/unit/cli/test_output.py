"""What others wrote does not command the terminal of the person who reads it."""

import io

import pytest
from rich.text import Text

from tailor.cli.output import PlainConsole, TextOutput, plain, print_error, table
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
    TextOutput().write("one two\n\x1b[2J")
    assert capsys.readouterr().out == "one two\n\ufffd[2J"


def test_an_error_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(InvalidArgument(Reason.INVALID_KEY, "no \x1b[2J", field_violations={"name": "\x9b1m"}))
    assert capsys.readouterr().err == "error: INVALID_KEY: no \ufffd[2J\n  name: \ufffd1m\n"


def test_other_texts_stay_as_they_are() -> None:
    assert plain("Ngozi Okafor\n\t£12 – naïve 日本") == "Ngozi Okafor\n\t£12 – naïve 日本"
