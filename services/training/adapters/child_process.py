"""Heavy work of the service in a process of its own, so that the service loads no model library: it answers with one JSON object."""

import ctypes
import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable

PR_SET_PDEATHSIG = 1
# The disk is full, or this user's or this process's share of it.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def ask(module: str, arguments: Sequence[str], seconds: float, field: str) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS`; what it answers. `field` is the one of the request that its errors are about, where they name none.

    InvalidArgument or Unavailable as the process says; Unavailable (CHILD_TIMEOUT) where it takes longer than it may.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(Reason.CHILD_TIMEOUT, f"The {field} could not be read in {seconds:.0f} seconds.") from None
    said = _last_object(done.stdout)
    if done.returncode == 0 and said:
        return said
    if done.returncode < 0:
        raise Unavailable(
            Reason.CHILD_KILLED, f"The process that reads the {field} was killed; is there enough memory?"
        )
    if said.get("retryable"):
        raise Unavailable(Reason(said["reason"]), said["message"])
    reason, message = said.get("reason", Reason.CHILD_FAILED), said.get("message", f"The {field} could not be read.")
    raise InvalidArgument(Reason(reason), message, field_violations=said.get("fields") or {field: message})


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        said = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def answer(work: Callable[[], Mapping[str, Any]]) -> int:
    """The process's side: do the work, say what came of it; the exit code."""
    # A service that was killed leaves no such process behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        print(json.dumps(work()))
    except TailorError as error:
        return _refuse(error)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _refuse(no_room())
    return 0


def no_room() -> Unavailable:
    """What to raise where something could not be written."""
    return Unavailable(Reason.DISK_FULL, "The disk of the training host is full; make room and try again.")


def _refuse(error: TailorError) -> int:
    said = {"reason": error.reason, "message": error.message, "retryable": error.retryable}
    print(json.dumps({**said, "fields": error.field_violations}))
    return 1
