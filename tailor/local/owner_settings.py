"""The owner's settings of the embedded services: one table per service, every setting as the service's README names it."""

import json
import tomllib
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason
from tailor.local.layout import SERVICES

# Settings that name files: a relative path is meant from the folder of the settings file, not from the process's working directory.
PATH_ENDINGS = ("_file", "_dir", "_directory", "_folder", "_path")
PATHS = ("recipes", "suites")
# The table for stores of one's own is read by the stack itself.
OTHER_TABLES = ("stores",)
# The names of the settings that the owner gave, so that the service can refuse one that it does not have.
GIVEN = "TAILOR_OWNER_SETTINGS"


def owner_settings(service: str, settings_file: Path) -> dict[str, str]:
    """The variables of a service's table; none without a file.

    Raises InvalidArgument (INVALID_SETTINGS_FILE) if the file is not TOML, or has a table that belongs to no service.
    """
    if not settings_file.exists():
        return {}
    try:
        tables = tomllib.loads(settings_file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(Reason.INVALID_SETTINGS_FILE, f"{settings_file} is not TOML: {error}.") from None
    for name, table in tables.items():
        if name not in (*SERVICES, *OTHER_TABLES):
            known = ", ".join(SERVICES)
            raise InvalidArgument(
                Reason.INVALID_SETTINGS_FILE,
                f"{settings_file} has an unknown table [{name}]; known tables are {known}.",
            )
        if not isinstance(table, dict):
            raise InvalidArgument(
                Reason.INVALID_SETTINGS_FILE, f"{settings_file} has {name} outside of a table; put it under [SERVICE]."
            )
    table = tables.get(service, {})
    values = {f"TAILOR_{name.upper()}": _text(name, value, settings_file.parent) for name, value in table.items()}
    return values | ({GIVEN: ",".join(sorted(table))} if table else {})


def _text(name: str, value: Any, folder: Path) -> str:
    """A setting's value in an environment variable; tables and lists are JSON."""
    if isinstance(value, str) and (name.endswith(PATH_ENDINGS) or name in PATHS):
        return str(folder / Path(value).expanduser())
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)
