"""Entry point of a worker, which trains one stage of a run under one lease epoch: `python -m services.training.worker`.

Exits with 0 after it reported an end or is no longer wanted, with 75 if it saved and should be started again, with anything else if it
failed.
"""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from services.training.domain import RETRIABLE_EXIT
from services.training.exit_code import exit_with
from services.training.settings import WorkerSettings
from services.training.spec import WorkerSpec, from_json
from tailor.errors import InvalidArgument, Reason
from tailor.logging import configure


class Interrupt:
    """Handles SIGTERM. Before and after training it ends the worker at once; during training, the trainer saves first."""

    def __init__(self, exit_file: Path | None) -> None:
        self._exit_file = exit_file
        self.in_training = threading.Event()
        self.stop_requested = threading.Event()

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self.stop_requested.set()
        if not self.in_training.is_set():
            exit_with(RETRIABLE_EXIT, self._exit_file)


def read_spec(settings: WorkerSettings) -> WorkerSpec:
    """The stage that this worker was started for. Raises InvalidArgument (NO_RUN)."""
    text = settings.run_file.read_text(encoding="utf-8") if settings.run_file else settings.run_json
    if not text:
        raise InvalidArgument(Reason.NO_RUN, "Set TAILOR_RUN_FILE or TAILOR_RUN_JSON.")
    return from_json(text)


def main() -> NoReturn:
    """Run the worker and end this process."""
    from services.training.worker.reporter import LogLines
    from services.training.worker.worker import run_worker
    from tailor.hardware import keep_freed_memory, share_cores

    share_cores()
    keep_freed_memory()
    settings = WorkerSettings()
    lines = LogLines()
    configure("training-worker", settings.log_level, lines)
    interrupt = Interrupt(settings.exit_file)
    signal.signal(signal.SIGTERM, interrupt.handle)
    code = run_worker(settings, read_spec(settings), interrupt.in_training, interrupt.stop_requested, lines)
    sys.stdout.flush()
    sys.stderr.flush()
    # Native threads of the model libraries may not end by themselves.
    exit_with(code, settings.exit_file)


if __name__ == "__main__":
    main()
