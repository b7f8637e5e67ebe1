"""`python -m services.training.launchers.torchrun OPTIONS`: torchrun, ending as its processes did. By itself it exits with 1 whatever happened, and
the service could not tell a worker that saved from one that failed."""

import os
import sys
from pathlib import Path

from services.training.domain import RETRIABLE_EXIT
from services.training.exit_code import EXIT_FILE, leave

SIGNALLED = 128


def main(arguments: list[str]) -> int:
    """The exit code of the first process that failed; 75 where torchrun was told to end, and with it all of them, which saved."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(arguments)
    except SignalException:
        return RETRIABLE_EXIT
    except ChildFailedError as error:
        code = int(error.get_first_failure()[1].exitcode)
        return code if code > 0 else SIGNALLED - code
    return 0


if __name__ == "__main__":
    # Its own, and not that of the processes that it starts.
    named = os.environ.pop(EXIT_FILE, "")
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    leave(status, Path(named) if named else None)
