"""Heavy work in a child process, so that the service itself loads no model library. The child prints one JSON object."""

import ctypes
import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

PR_SET_PDEATHSIG = 1
# The disk, the user's quota or the process's file size limit is exhausted.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_child(
    module: str, arguments: Sequence[str], seconds: float, field: str, *, reads_rows: bool = False
) -> dict[str, Any]:
    """Run `python -m MODULE ARGUMENTS` and return its JSON object. Blocks for up to `seconds`.

    `field` is the request's field that errors refer to if the child names none. The message of an unexpected error is shown unless the
    child reads rows, which it may quote. Raises InvalidArgument or Unavailable as the child reports, and Unavailable (CHILD_TIMEOUT,
    CHILD_KILLED).
    """
    return read_child(start_child(module, arguments), module, seconds, field, reads_rows=reads_rows)


def start_child(module: str, arguments: Sequence[str]) -> "subprocess.Popen[str]":
    """Start `python -m MODULE ARGUMENTS`, and do not wait for it."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_child(
    child: "subprocess.Popen[str]",
    module: str,
    seconds: float,
    field: str,
    *,
    reads_rows: bool = False,
    request: str = "",
) -> dict[str, Any]:
    """Write the request to a started child's input and return its JSON object, as `run_child` does."""
    try:
        printed, errors = child.communicate(request, timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise Unavailable(Reason.CHILD_TIMEOUT, f"The {field} could not be read in {seconds:.0f} seconds.") from None
    output = _last_object(printed)
    if child.returncode == 0 and output:
        return output
    cause = "" if "reason" in output else describe_exit(child.returncode, errors, with_message=not reads_rows)
    if cause:
        log.warning("child process failed", module=module, error=cause)
    if child.returncode < 0:
        raise Unavailable(
            Reason.CHILD_KILLED, f"The process that reads the {field} was killed: {cause}. Is there enough memory?"
        )
    if output.get("retryable"):
        raise Unavailable(Reason(output["reason"]), output["message"])
    reason = output.get("reason", Reason.CHILD_FAILED)
    message = output.get("message", f"The {field} could not be read: {cause}.")
    raise InvalidArgument(Reason(reason), message, field_violations=output.get("fields") or {field: message})


def _last_object(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def answer_parent(work: Callable[[], Mapping[str, Any]]) -> int:
    """The child's side: do the work and print its result or its error. Returns the exit code."""
    # The child ends with a service that is killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        print(json.dumps(work()))
    except TailorError as error:
        return _print_error(error)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        return _print_error(disk_full())
    return 0


def disk_full() -> Unavailable:
    """The error to raise if a file could not be written for lack of space."""
    return Unavailable(Reason.DISK_FULL, "The disk of the training host is full. Free some space and try again.")


def _print_error(error: TailorError) -> int:
    output = {"reason": error.reason, "message": error.message, "retryable": error.retryable}
    print(json.dumps({**output, "fields": error.field_violations}))
    return 1
