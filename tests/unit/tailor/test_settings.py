"""Settings that a service cannot use: the error that it prints at start."""

import importlib
import traceback

import pytest
from pydantic_settings import BaseSettings

from deploy.init import buckets, databases, topics

SERVICES = (
    *("ingestion", "anonymization", "synthetic", "training"),
    *("evaluation", "registry", "inference", "console"),
)
PROGRAMS: tuple[type[BaseSettings], ...] = (
    *(importlib.import_module(f"services.{name}.settings").Settings for name in SERVICES),
    *(buckets.Settings, databases.Settings, topics.Settings),
)
LEAK = "k3y-with-a-typo"


def _name(program: type[BaseSettings]) -> str:
    return program.__module__


@pytest.mark.parametrize("program", PROGRAMS, ids=_name)
@pytest.mark.parametrize("missing", [False, True])
def test_an_error_about_settings_shows_no_secret(
    program: type[BaseSettings], missing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = [name for name, field in program.model_fields.items() if "SecretStr" in str(field.annotation)]
    required = [name for name, field in program.model_fields.items() if field.is_required()]
    assert secret
    # Without a required field, an error would show the beginning and the end of all the others.
    for name in dict.fromkeys([*secret, *required[: -1 if missing else None]]):
        monkeypatch.setenv(f"TAILOR_{name.upper()}", LEAK)
    if missing and required:
        monkeypatch.delenv(f"TAILOR_{required[-1].upper()}", raising=False)
    try:
        program()
    except ValueError as error:
        assert LEAK not in "".join(traceback.format_exception(error))
