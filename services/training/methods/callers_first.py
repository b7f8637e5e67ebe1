"""A worker makes way for callers: within a step, it pauses between the modules of its models while inference on this machine answers.

Nothing is computed differently: the same operations run in the same order, only later.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tailor.compute_lock import TURN_SECONDS, ComputeLock

# The longest pause. A caller's first token takes less than that; with longer answers, training and inference take turns.
PAUSE_SECONDS = 2.0
LOOK_SECONDS = 0.005
# Between two tokens of an answer nobody waits for a moment.
QUIET_SECONDS = 0.05


class Pauses:
    """Decides when to pause, and for how long: while a call waits, but for no more time than the worker ran, and 2 s ahead of that."""

    def __init__(
        self,
        call_waits: Callable[[], bool],
        take_turn: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._call_waits = call_waits
        self._take_turn = take_turn
        self._now = now
        self._sleep = sleep
        self._credit = PAUSE_SECONDS
        self._resumed = now()
        self._next_look = self._resumed

    def pause(self) -> None:
        """Block while a call waits and there is credit. Takes a microsecond if nobody waits."""
        now = self._now()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if not self._call_waits():
            return
        self._credit = min(PAUSE_SECONDS, self._credit + now - self._resumed)
        self._resumed = self._wait(now + self._credit)
        self._credit -= self._resumed - now
        if self._credit <= 0:
            self._take_turn()
            self._next_look = self._resumed + TURN_SECONDS

    def _wait(self, until: float) -> float:
        """Block until nobody has waited for a moment, at most until `until`. Returns the time."""
        now = waited = self._now()
        while now < until and now - waited < QUIET_SECONDS:
            self._sleep(LOOK_SECONDS)
            now = self._now()
            if self._call_waits():
                waited = now
        return now


def make_way(path: Path | None) -> Callable[[], None]:
    """Let this process pause while the compute lock at `path` is held; without a path it never does. Returns what ends that.

    Holds for every model of the process: training, measuring and generating alike. Imports torch.
    """
    if path is None:
        return lambda: None
    lock = ComputeLock(path)
    return hook_modules(Pauses(lock.is_held, lock.take_turn).pause)


def hook_modules(pause: Callable[[], None]) -> Callable[[], None]:
    """Call `pause` after each module's forward pass, and before its backward pass. Returns what removes the hooks."""
    from torch.nn.modules.module import register_module_forward_hook

    def before_backward(_: Any) -> None:
        pause()

    def after_forward(_module: Any, _arguments: Any, output: Any) -> None:
        # Not a leaf, on which hooks would gather step by step.
        if getattr(output, "grad_fn", None) is not None:
            output.register_hook(before_backward)
        pause()

    remove: Callable[[], None] = register_module_forward_hook(after_forward).remove
    return remove
