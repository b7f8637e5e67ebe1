"""Commands that people are told to type."""

from pathlib import Path

import pytest

from tailor.cli.next_commands import to_command


def test_names_the_program_as_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [".venv/bin/tailor", "demo"])
    assert to_command(Path(".tailor"), "build", "reports") == ".venv/bin/tailor build reports"
    monkeypatch.setattr("sys.argv", ["/usr/lib/python/main.py"])
    assert to_command(Path(".tailor"), "up") == "tailor up"


def test_quotes_arguments_and_names_another_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tailor"])
    command = to_command(Path("/tmp/my state"), "ask", "reports", "Why?")
    assert command == "tailor ask reports 'Why?' --state-dir '/tmp/my state'"
