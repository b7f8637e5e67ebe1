"""The stored state of a stack, and the processes it names."""

import os
import subprocess
import sys
from pathlib import Path

from tailor.local.processes import ProcessRef, command_of, identify
from tailor.local.state import ComponentState, StackSnapshot, load, save


def _snapshot(supervisor: ProcessRef | None) -> StackSnapshot:
    broker = ComponentState(
        "broker", "ready", "", {"kafka": "127.0.0.1:20000"}, 2, ProcessRef(7, 70), ("broker", "start")
    )
    return StackSnapshot(supervisor, 20000, {"broker": broker})


def test_reads_back_a_written_snapshot(tmp_path: Path) -> None:
    snapshot = _snapshot(ProcessRef(1, 2))
    save(tmp_path / "stack.json", snapshot)
    assert load(tmp_path / "stack.json") == snapshot
    assert load(tmp_path / "other.json") is None


def test_a_stack_without_a_live_supervisor_is_not_running() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert _snapshot(me).running
    assert not _snapshot(ProcessRef(me.pid, me.start_ticks + 1)).running
    assert not _snapshot(None).running


def test_a_stopped_stack_keeps_its_ports_but_no_process() -> None:
    stopped = _snapshot(ProcessRef(1, 2)).stopped()
    assert stopped.port_base == 20000
    assert stopped.components["broker"].process is None
    assert not stopped.ready


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    reference = identify(child.pid)
    assert reference is not None
    assert reference.is_alive()
    assert command_of(child.pid)[-1].endswith("input()")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not reference.is_alive()
    child.communicate()


def test_importing_the_stack_imports_no_heavy_library() -> None:
    heavy = ("cryptography", "grpc", "kafka", "minio", "psycopg", "torch")
    code = f"import sys, tailor.local.stack; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[3]
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_describes_what_is_not_ready() -> None:
    parts = {
        "broker": ComponentState("broker", "ready", "", {}),
        "store": ComponentState("store", "starting", "", {}),
        "registry": ComponentState("registry", "waiting", "its database", {}),
    }
    assert StackSnapshot(None, 20000, parts).describe_waiting() == "store (starting), registry (its database)"
