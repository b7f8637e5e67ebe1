"""A digest of everything that finds values, so that it is known which documents passed with other detectors."""

import hashlib
import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from services.anonymization.settings import Settings

SERVICE = Path(__file__).parents[1]
# What decides which values are found: the recognisers, the forms of dates and amounts, and the citations.
SOURCES = (
    "recognise/**/*.py", "recognise/**/*.toml", "recognise/*.txt", "surrogates/generalisation.py", "surrogates/dates.py",
    "policy/citations.toml",
)  # fmt: skip
PACKAGES = ("presidio-analyzer", "spacy", "faker", "phonenumbers", "python-stdnum", "pyspellchecker")
# Settings that decide where texts go or who may read them, but not what is found.
OTHER_SETTINGS = frozenset((
    "policy_file", "detectors_file", "seconds_per_text", "quarantine_key", "vault_key", "vault_previous_keys", "lists_dir", "max_residual",
    "max_residual_bound", "uncovered_languages",
))  # fmt: skip


def detectors_digest(settings: Settings, models: Iterable[str], files: Iterable[Path] = ()) -> str:
    """SHA-256 over the recognisers' files, the versions of their libraries and models, further files, and the service's own settings.

    `models` are the names of packages; empty ones are left out.
    """
    content = hashlib.sha256()
    sources = sorted(path for pattern in SOURCES for path in SERVICE.glob(pattern))
    for name, path in [
        *((str(path.relative_to(SERVICE)), path) for path in sources),
        *((path.name, path) for path in files),
    ]:
        content.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    packages = (*PACKAGES, *(model.replace("_", "-") for model in models if model))
    content.update(json.dumps({name: _version(name) for name in packages}, sort_keys=True).encode())
    content.update(json.dumps(_own_settings(settings), sort_keys=True, default=str).encode())
    return content.hexdigest()


def _own_settings(settings: Settings) -> dict[str, object]:
    """The settings that only anonymization has: its languages and regions."""
    shared = {name for base in Settings.__mro__[1:] for name in getattr(base, "model_fields", {})}
    remaining = set(Settings.model_fields) - shared - OTHER_SETTINGS
    return {name: getattr(settings, name) for name in sorted(remaining)}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
