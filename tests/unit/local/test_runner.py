"""Restart delays, log rotation, upkeep, and a disk that is full."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path

import pytest

from tailor.errors import Reason, Unavailable
from tailor.local import processes
from tailor.local.component import Component
from tailor.local.layout import Layout
from tailor.local.ports import Ports
from tailor.local.runner import LOG_BYTES, Backoff, ComponentRunner, rotate
from tailor.local.state import ComponentState, load
from tailor.local.supervisor import StackSupervisor


def test_doubles_the_delay_after_each_short_life_up_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_resets_the_delay_after_a_long_life() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.after(1.0)
    assert backoff.after(31.0) == 0.5
    assert backoff.after(1.0) == 1.0


def test_rotates_a_large_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "broker.log"
    rotate(log)
    log.write_bytes(b"x" * 10)
    rotate(log)
    assert log.exists()
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    rotate(log)
    assert [file.name for file in log.parent.iterdir()] == ["broker.log.1"]


def test_calls_the_upkeep_of_a_ready_component_again_and_again_also_after_a_failure(tmp_path: Path) -> None:
    calls = []

    def upkeep() -> None:
        calls.append(1)
        raise Unavailable(Reason.OBJECT_STORE_UNAVAILABLE, "The object store does not answer.")

    component = Component(
        name="store",
        command=("/bin/sleep", "60"),
        environment={},
        directory=tmp_path / "store",
        check=lambda: None,
        addresses={},
        upkeep=upkeep,
    )

    async def run() -> None:
        runner = ComponentRunner(component, Layout(tmp_path), {}, lambda _: None, upkeep_seconds=0.05)
        task = asyncio.create_task(runner.run())
        while len(calls) < 3:
            await asyncio.sleep(0.02)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.stop()

    asyncio.run(asyncio.wait_for(run(), 120))
    assert len(calls) >= 3


@pytest.mark.parametrize(
    ("command", "kills", "reason"),
    [
        ("kill -9 $$", (4, 4), "ended by SIGKILL"),
        ("kill -9 $$", (4, 5), "killed by the kernel because memory ran out"),
        ("exit 3", (4, 5), "ended with code 3"),
    ],
)
def test_a_restart_says_how_the_last_process_ended(
    command: str, kills: tuple[int, int], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = itertools.chain(kills, itertools.repeat(kills[1]))
    monkeypatch.setattr(processes, "count_memory_kills", lambda: next(counts))
    component = Component("inference", ("/bin/sh", "-c", command), {}, tmp_path / "inference", lambda: "", {})
    states: list[ComponentState] = []

    async def run() -> None:
        runner = ComponentRunner(component, Layout(tmp_path), {}, states.append)
        task = asyncio.create_task(runner.run())
        while not any(state.restarts for state in states):
            await asyncio.sleep(0.02)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await runner.stop()

    asyncio.run(asyncio.wait_for(run(), 120))
    ended = next(state for state in states if state.restarts)
    assert ended.last_end.endswith(f" UTC: {reason}") and ended.detail.startswith(reason)


def test_counts_the_memory_kills_of_this_machine() -> None:
    assert processes.count_memory_kills() >= 0


def test_a_full_disk_does_not_stop_the_supervisor(tmp_path: Path) -> None:
    # Like a full disk, a folder that is gone makes every write fail.
    gone = Layout(tmp_path / "gone")
    component = Component("store", ("true",), {}, tmp_path, lambda: None, {})
    supervisor = StackSupervisor(gone, Ports(20_000), [component])
    supervisor.publish(ComponentState("store", "ready", "", {}))
    gone.root.mkdir()
    supervisor.publish(ComponentState("store", "waiting", "", {}))
    snapshot = load(gone.stack_file)
    assert snapshot is not None and snapshot.components["store"].state == "waiting"
