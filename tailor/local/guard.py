"""The supervisor's parent: when the supervisor ends, for any reason, the guard kills every process that it leaves behind."""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

from tailor.local import processes

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def run_guarded(run: Callable[[], None]) -> int:
    """Call `run` in a child process, and return the child's exit code after every descendant has ended.

    Blocks. Call it before any thread exists, because it forks.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        run()
        sys.exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGTERM))
    code = _wait(child)
    _end_descendants()
    return code


def prctl(option: int, value: int) -> None:
    """Set a property of this process. Raises OSError. (`setpriv` cannot make a process a subreaper.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _wait(child: int) -> int:
    while True:
        # Orphans of the supervisor's children become children of this process, so reap them here.
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _end_descendants() -> None:
    while True:
        processes.kill(processes.children_of(os.getpid()))
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.02)
