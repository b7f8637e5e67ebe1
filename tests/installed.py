"""Programs of the machine that tests need besides Python's packages."""

import shutil
from collections.abc import Mapping


class Missing(Exception):
    """Programs are missing. The message says what to install."""


def check_installed(remedies: Mapping[str, str], purpose: str, path: str | None = None) -> None:
    """Raise Missing, naming all that must be installed. `remedies` are by the program's name, `path` is searched in place of PATH."""
    missing = [remedy for name, remedy in sorted(remedies.items()) if shutil.which(name, path=path) is None]
    if missing:
        raise Missing(f"To test on {purpose}, install {'; '.join(missing)}.")
