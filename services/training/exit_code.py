"""How a worker's main process reports its exit code: in a file, because a restarted service is not its parent and cannot wait for it."""

import os
from pathlib import Path
from typing import NoReturn

EXIT_FILE = "TAILOR_EXIT_FILE"


def exit_with(code: int, exit_file: Path | None) -> NoReturn:
    """End this process at once. The file is written last and atomically; a killed process leaves none."""
    try:
        if exit_file is not None:
            partial = exit_file.with_suffix(".partial")
            partial.write_text(str(code), encoding="utf-8")
            partial.replace(exit_file)
    finally:
        os._exit(code)
