"""Commands that run as children of the supervisor, by `setpriv` of util-linux.

Such a child is killed as soon as its parent dies. It may run as another user, because some programs refuse to run as root. It then keeps
the capability to enter and read what only root may, because the state directory is such a directory, but none to write it.
"""

import pwd
import shutil

from tailor.errors import FailedPrecondition, Reason

CAPABILITY = "-all,+dac_read_search"


def find_setpriv() -> str:
    """The path of `setpriv`. Raises FailedPrecondition(NOT_INSTALLED) if it is missing."""
    path = shutil.which("setpriv")
    if path is None:
        raise FailedPrecondition(Reason.NOT_INSTALLED, "setpriv is missing; install the package util-linux.")
    return path


def child_command(command: tuple[str, ...], user: str | None) -> tuple[str, ...]:
    """The command, to be started as a child of this process, and as `user` if one is given."""
    options = ["--pdeathsig", "KILL"]
    if user is not None:
        # The capability must be inheritable to be ambient, and ambient to survive the change of user.
        options += ["--reuid", user, "--regid", _group(user), "--clear-groups"]
        options += [
            "--inh-caps",
            CAPABILITY,
            "--ambient-caps",
            CAPABILITY,
            "--bounding-set",
            CAPABILITY,
            "--no-new-privs",
        ]
    return (find_setpriv(), *options, "--", *command)


def _group(user: str) -> str:
    return str(pwd.getpwnam(user).pw_gid)
