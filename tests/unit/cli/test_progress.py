"""How a long command waits, and shows what it does."""

import io

import pytest
from rich.console import Console

from tailor.cli.progress import ProgressReporter, wait_for, wait_out_errors
from tailor.errors import DeadlineExceeded, NotFound, Reason, Unavailable


def quiet(text: str) -> None:
    del text


def test_waits_out_retryable_errors_and_no_others() -> None:
    answers: list[Exception | int] = [Unavailable(Reason.STOPPED, "It restarts."), 7]
    texts: list[str] = []

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_out_errors(call, texts.append) == 7
    assert texts == ["waiting: It restarts."]
    answers.append(NotFound(Reason.NOT_FOUND, "There is none."))
    with pytest.raises(NotFound):
        wait_out_errors(call, quiet)


def test_gives_up_on_an_error_that_lasts() -> None:
    def call() -> int:
        raise Unavailable(Reason.STOPPED, "It restarts.")

    with pytest.raises(Unavailable):
        wait_out_errors(call, quiet, give_up_seconds=0.0)


def test_a_flow_that_stalls_is_an_error() -> None:
    with pytest.raises(DeadlineExceeded, match="3 of 4 documents"):
        wait_for(lambda: (None, "3 of 4 documents"), quiet, stalled_seconds=0.05, poll_seconds=0.01)


def test_steps_are_lines_without_a_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100)
    progress = ProgressReporter(console, lambda: 0.0)

    with progress.step("up", "start the stack"):
        progress.now("every part is healthy")
    with pytest.raises(RuntimeError), progress.step("base", "fetch the base"):
        raise RuntimeError

    lines = output.getvalue().splitlines()
    assert lines[0] == "up: start the stack ..."
    assert lines[1].startswith("up: done in 0.0 s. every part is healthy")
    assert lines[-1].startswith("base: failed in 0.0 s")
    assert list(progress.seconds) == ["up", "base"]


def test_progress_is_one_line_a_minute_without_a_terminal() -> None:
    output, seconds = io.StringIO(), [0.0]
    progress = ProgressReporter(Console(file=output, width=100), lambda: seconds[0])

    with progress.step("training", "train"):
        for second in range(150):
            seconds[0] = second
            progress.now(f"step {second}")

    lines = output.getvalue().splitlines()
    assert [line.strip() for line in lines[1:-1]] == ["step 61", "step 122"]
    assert lines[-1] == "training: done in 149.0 s. step 149"


def test_a_terminal_shows_what_is_happening_now() -> None:
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=True)
    progress = ProgressReporter(console)

    with progress.step("up", "start the stack"):
        progress.now("waiting for [the broker]")

    assert "waiting for [the broker]" in output.getvalue()
