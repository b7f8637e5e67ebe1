"""Starts one child of the supervisor: `python -I -S launch.py PARENT_PID USER|- COMMAND...`. Standard library only.

The child dies with its parent. With a user, it runs as that one, for programs that refuse to run as root; it keeps the right to pass
directories that only root may enter, for the state directory may lie in one.
"""

import ctypes
import os
import pwd
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def main() -> None:
    """Become the command."""
    parent, user, *command = sys.argv[1:]
    if user != "-":
        _become(user)
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != int(parent):
        sys.exit("The supervisor is gone.")
    os.execv(command[0], command)  # noqa: S606


def _become(user: str) -> None:
    entry = pwd.getpwnam(user)
    _check(_libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    mask = 1 << CAP_DAC_OVERRIDE
    data = (_Data * 2)(_Data(mask, mask, mask), _Data(0, 0, 0))
    _check(_libc.capset(ctypes.byref(_Header(CAPABILITY_VERSION_3, 0)), data))
    _check(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main()
