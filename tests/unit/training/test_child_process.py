"""Failures of a child process, as the service that started it reports them."""

from pathlib import Path

import pytest

from services.training.adapters.child_process import run_child
from tailor.errors import InvalidArgument, TailorError, Unavailable

NOTE = "Ann Lee's loan"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that a child process can run by the name `child`."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "child.py"


def failure(script: str, module: Path, *, reads_rows: bool = False) -> TailorError:
    module.write_text(script, encoding="utf-8")
    with pytest.raises(TailorError) as failed:
        run_child("child", [], 60, "source", reads_rows=reads_rows)
    return failed.value


def test_unexpected_error_of_a_child_reaches_the_message_and_the_log(
    module: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failure("raise RuntimeError('no primitive')", module)
    assert isinstance(error, InvalidArgument)
    assert error.message == "The source could not be read: RuntimeError: no primitive."
    assert "no primitive" in capsys.readouterr().out


def test_message_of_a_child_that_reads_rows_is_not_shown(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = failure(f"raise ValueError({NOTE!r})", module, reads_rows=True)
    assert error.message == "The source could not be read: ValueError."
    assert NOTE not in capsys.readouterr().out


def test_child_that_is_killed_names_its_signal(module: Path) -> None:
    error = failure("import os; os.kill(os.getpid(), 4)", module)
    assert isinstance(error, Unavailable)
    assert "was killed: it was ended by SIGILL" in error.message
