"""Children of the supervisor: they die with their parent, and may run as another user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tailor.errors import FailedPrecondition
from tailor.local.processes import identify
from tailor.local.setpriv import child_command
from tests.waiting import wait_until

# Starts a child by `child_command`, prints its pid, and is killed.
PARENT = """
import os, subprocess, sys, time
from tailor.local.setpriv import child_command
child = subprocess.Popen(child_command((sys.executable, "-I", "-S", "-c", "import time; print(flush=True); time.sleep(60)"), {user!r}),
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    "user", [None, pytest.param("nobody", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))]
)
def test_a_child_dies_with_its_parent(user: str | None) -> None:
    root = Path(__file__).parents[3]
    parent = subprocess.run(
        [sys.executable, "-c", PARENT.format(user=user)], cwd=root, capture_output=True, text=True, check=False
    )
    pid = int(parent.stdout)
    wait_until(lambda: (process := identify(pid)) is None or not process.is_alive())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_keeps_only_the_right_to_enter_and_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("readable\n")
    command = child_command(
        (
            "/bin/sh",
            "-c",
            f"id -u; cat {tmp_path / 'file'}; echo x 2>/dev/null >> {tmp_path / 'file'} || echo refused; grep -E 'CapEff|CapBnd' /proc/self/status",
        ),
        "nobody",
    )

    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert answer[1:] == ["readable", "refused", "CapEff:", "0000000000000004", "CapBnd:", "0000000000000004"]
    assert answer[0] != "0"


def test_a_missing_setpriv_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition, match=r"NOT_INSTALLED: .*util-linux"):
        child_command(("true",), None)
