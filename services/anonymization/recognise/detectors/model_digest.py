"""The digest of a model, so that a detector uses the files that were measured and no others."""

from importlib.util import find_spec
from pathlib import Path

from tailor.errors import FailedPrecondition, Reason
from tailor.storage.folder_digest import digest_of


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


def check_folder(detector: str, folder: Path, expected: str) -> None:
    """Compare a model's folder with the digest in the detectors file. Raises FailedPrecondition (INVALID_MODEL)."""
    if not folder.is_dir():
        raise FailedPrecondition(
            Reason.INVALID_MODEL,
            f"The model of the detector `{detector}` must be a folder on this machine with the model's files.",
        )
    if expected and digest_of(folder) != expected:
        raise FailedPrecondition(
            Reason.INVALID_MODEL,
            f"The model's folder of the detector `{detector}` is not the one that `sha256` names; add the model again.",
        )
