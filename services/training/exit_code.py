"""How the process that a launcher started ends: a restarted service cannot wait for it, and reads its exit code from a file."""

import os
from pathlib import Path
from typing import NoReturn

EXIT_FILE = "TAILOR_EXIT_FILE"


def leave(code: int, exit_file: Path | None) -> NoReturn:
    """End this process at once. The code is written last, and whole; a process that was killed leaves no file."""
    try:
        if exit_file is not None:
            partial = exit_file.with_suffix(".leaving")
            partial.write_text(str(code), encoding="utf-8")
            partial.replace(exit_file)
    finally:
        os._exit(code)
