"""torchrun exits with the code of its processes, and none of them outlives it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
# A process writes its id to a file, then does as its argument says. On SIGTERM it takes a moment to save.
PROCESS = """
import os, signal, sys, time
if "TAILOR_EXIT_FILE" in os.environ:
    sys.exit(1)
rank, folder = int(os.environ["RANK"]), os.path.dirname(os.path.abspath(__file__))
def end(*_):
    time.sleep(0.5)
    open(f"{folder}/saved-{rank}", "w").close()
    os._exit(75)
signal.signal(signal.SIGTERM, end)
open(f"{folder}/pid-{os.getpid()}", "w").close()
if rank == 1 and sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if rank == 1 and sys.argv[1] == "failed":
    sys.exit(7)
if sys.argv[1] == "whole":
    sys.exit(0)
time.sleep(600)
"""


def start(folder: Path, what: str) -> subprocess.Popen[bytes]:
    script = folder / "process.py"
    script.write_text(PROCESS)
    options = ["--standalone", "--nproc-per-node=2", "--shutdown-timeout=20", "--monitor-interval=0.1"]
    return subprocess.Popen(
        [sys.executable, "-m", "services.training.launchers.torchrun", *options, str(script), what],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TAILOR_EXIT_FILE": str(folder / "worker.exit"),
        },
        stderr=subprocess.DEVNULL,
    )


def living(folder: Path) -> list[int]:
    numbers = [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]
    return [number for number in numbers if Path(f"/proc/{number}").exists()]


@pytest.mark.parametrize(("what", "code"), [("whole", 0), ("failed", 7), ("killed", 128 + 9)])
def test_exit_code_is_that_of_the_first_failed_process(tmp_path: Path, what: str, code: int) -> None:
    assert start(tmp_path, what).wait(300) == code
    assert (tmp_path / "worker.exit").read_text() == str(code)
    assert living(tmp_path) == []


def test_sigterm_lets_every_process_save_and_exits_retriable(tmp_path: Path) -> None:
    process = start(tmp_path, "wait")
    wait_until(lambda: len(living(tmp_path)) >= 2, 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 75
    assert (tmp_path / "worker.exit").read_text() == "75"
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]
    assert living(tmp_path) == []
