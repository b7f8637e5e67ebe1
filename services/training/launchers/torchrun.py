"""torchrun with a meaningful exit code: `python -m services.training.launchers.torchrun OPTIONS`.

torchrun itself always exits with 1, and the service could not distinguish a worker that saved from one that failed.
"""

import os
import sys
from pathlib import Path

from services.training.domain import RETRIABLE_EXIT
from services.training.exit_code import EXIT_FILE, exit_with

SIGNALLED = 128


def main(arguments: list[str]) -> int:
    """Run torchrun. Returns the exit code of the first process that failed, or 75 if torchrun was asked to end and all saved."""
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
    # Popped, because only this process may write the file, not its children.
    exit_file = os.environ.pop(EXIT_FILE, "")
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    exit_with(status, Path(exit_file) if exit_file else None)
