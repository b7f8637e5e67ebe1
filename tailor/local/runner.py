"""Keeps one component running."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tailor.errors import TailorError
from tailor.local import processes
from tailor.local.component import Component
from tailor.local.layout import Layout
from tailor.local.setpriv import child_command
from tailor.local.state import ComponentState, Status
from tailor.logging import get_logger

log = get_logger(__name__)

LOG_BYTES = 5_000_000
POLL_SECONDS = 0.25
# On a busy machine, a healthy component sometimes answers late.
MAX_FAILED_CHECKS = 3
MAX_UNREADY_LIVES = 5
UPKEEP_SECONDS = 3600.0
KILLED = "ended by SIGKILL"
NO_ANSWER = "an answer to its checks"


@dataclass
class Backoff:
    """The delay before the next start: 0.5 s, doubling up to 10 s. A life of 30 s or more resets it."""

    delay_seconds: float = 0.25

    def after(self, lived_seconds: float) -> float:
        """The delay after a life of this length."""
        self.delay_seconds = 0.5 if lived_seconds >= 30 else min(self.delay_seconds * 2, 10.0)
        return self.delay_seconds


class ComponentRunner:
    """Starts a component when everything it needs is ready, and restarts it whenever it ends."""

    def __init__(
        self,
        component: Component,
        layout: Layout,
        needs: Mapping[str, asyncio.Event],
        publish: Callable[[ComponentState], None],
        upkeep_seconds: float = UPKEEP_SECONDS,
    ) -> None:
        self.component = component
        self.ready = asyncio.Event()
        self._layout = layout
        self._needs = needs
        self._publish = publish
        self._upkeep_seconds = upkeep_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._unready_lives = 0
        self._log_bytes = 0
        self.state = ComponentState(component.name, "waiting", "", component.addresses)

    async def run(self) -> None:
        """Run the component. Never returns: cancel the task, then call stop()."""
        for name, event in self._needs.items():
            self._say("waiting", name)
            await event.wait()
        backoff = Backoff()
        while True:
            started = asyncio.get_running_loop().time()
            memory_kills = processes.count_memory_kills()
            reason = await self._live()
            if reason == KILLED and processes.count_memory_kills() > memory_kills:
                reason = "killed by the kernel because memory ran out"
            delay = backoff.after(asyncio.get_running_loop().time() - started)
            status: Status = "failed" if self._unready_lives >= MAX_UNREADY_LIVES else "restarting"
            self._say(
                status,
                f"{reason}; restarting in {delay:g} s",
                restarts=self.state.restarts + 1,
                last_end=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {reason}",
                process=None,
                command=(),
            )
            await asyncio.sleep(delay)

    async def stop(self) -> None:
        """Ask the process to stop; kill it after `stop_seconds`."""
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.component.stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self.component.stop_seconds)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await self._sweep()
        self.component.tidy()
        self._say("stopped", "", process=None, command=())

    async def _live(self) -> str:
        """Run the process once, from preparation to end. Returns how it ended."""
        self._say("starting", "")
        self._unready_lives += 1
        try:
            await asyncio.to_thread(self.component.prepare)
            process = await self._spawn()
        except (OSError, subprocess.SubprocessError, TailorError) as error:
            return f"could not be started: {type(error).__name__}"
        self._process = process
        self._say("starting", "", process=processes.identify(process.pid), command=self.component.command)
        try:
            async with asyncio.TaskGroup() as tasks:
                watch, upkeep = tasks.create_task(self._watch()), tasks.create_task(self._keep_up())
                code = await process.wait()
                watch.cancel()
                upkeep.cancel()
        finally:
            self.ready.clear()
        await self._sweep()
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        return f"ended with code {code}{find_cause(self._layout.log_file(self.component.name), self._log_bytes)}"

    async def _spawn(self) -> asyncio.subprocess.Process:
        log = self._layout.log_file(self.component.name)
        self.component.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        rotate(log)
        with log.open("ab") as output:
            self._log_bytes = output.tell()
            return await asyncio.create_subprocess_exec(
                *child_command(self.component.command, self.component.user),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.component.directory,
                env=dict(self.component.environment),
                process_group=0,
            )

    async def _watch(self) -> None:
        failures = 0
        while True:
            detail = await asyncio.to_thread(self.component.check)
            has_been_ready = self._unready_lives == 0
            failures = 0 if detail is None else failures + 1
            if detail is None:
                self.ready.set()
                self._unready_lives = 0
                self._say("ready", "")
                if self.component.recheck_seconds is None:
                    return
            elif detail or not self.ready.is_set() or failures >= MAX_FAILED_CHECKS:
                self.ready.clear()
                detail = detail or (NO_ANSWER if has_been_ready else "")
                self._say("waiting" if detail else "starting", detail)
            pause = self.component.recheck_seconds if self._unready_lives == 0 else None
            await asyncio.sleep(POLL_SECONDS if pause is None else pause)

    async def _keep_up(self) -> None:
        while self.component.upkeep is not None:
            await asyncio.sleep(self._upkeep_seconds)
            if self.ready.is_set():
                try:
                    await asyncio.to_thread(self.component.upkeep)
                except TailorError as error:
                    log.warning("upkeep failed", component=self.component.name, reason=error.reason)

    async def _sweep(self) -> None:
        """Kill the processes that the component started and left behind."""
        process = self._process
        self._process = None
        if process is not None:
            processes.kill(await asyncio.to_thread(self._left_behind, process.pid))

    def _left_behind(self, group: int) -> list[int]:
        return sorted({*processes.group_members(group), *processes.find_marked(self._layout.root, self.component.name)})

    def _say(self, status: Status, detail: str, **changes: object) -> None:
        state = replace(self.state, state=status, detail=detail, **changes)  # type: ignore[arg-type]
        if state != self.state or status == "waiting":
            self.state = state
            self._publish(state)


def find_cause(log: Path, start: int) -> str:
    """Why a service could not start, from the lines of its log after `start` bytes; empty if they do not say."""
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                if entry["event"] == "cannot start":
                    return f": {entry['message'].rstrip('.')}"
    return ""


def rotate(log: Path) -> None:
    """Move a large log to `.log.1`, replacing an older one there."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
