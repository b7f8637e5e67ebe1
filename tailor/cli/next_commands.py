"""Commands to run next, as the reader can type them."""

import shlex
import sys
from pathlib import Path

DEFAULT_STATE_DIR = Path(".tailor")
NAME = "tailor"


def to_command(state_dir: Path, *arguments: str) -> str:
    """The command line with the path by which this program was started, quoted for a shell."""
    program = sys.argv[0] if Path(sys.argv[0]).name == NAME else NAME
    place = () if state_dir == DEFAULT_STATE_DIR else ("--state-dir", str(state_dir))
    return shlex.join([program, *arguments, *place])
