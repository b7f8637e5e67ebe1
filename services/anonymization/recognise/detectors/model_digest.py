"""The digest of an installed model, so that a detector uses the files that were measured and no others."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from tailor.errors import FailedPrecondition, Reason

CHUNK = 1 << 20


def digest_of(folder: Path) -> str:
    """The SHA-256 over the names and contents of a folder's files, compiled Python aside."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    total.update(chunk)
    return total.hexdigest()


def check_model(detector: str, package: str, expected: str) -> None:
    """Compare an installed package with the digest in the detectors file, without importing it.

    Raises FailedPrecondition (INVALID_MODEL) if it is missing or differs.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FailedPrecondition(
            Reason.INVALID_MODEL,
            f"The detector `{detector}` needs the model {package}, which is not installed; install it or remove the detector.",
        )
    if expected and digest_of(Path(spec.origin).parent) != expected:
        raise FailedPrecondition(
            Reason.INVALID_MODEL,
            f"The installed model {package} is not the one that the detector `{detector}` names by `sha256`; reinstall it.",
        )
