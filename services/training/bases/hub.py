"""Downloads a base from a hub: the only module that contacts one, at an operator's request.

`HF_TOKEN` gives access to private and gated models, `HF_ENDPOINT` names another hub. Only the training service has these settings.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable

NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
CARD = "README.md"


@dataclass(frozen=True)
class HubSnapshot:
    """A model's files at one commit."""

    folder: Path
    source: str


def download(name: str, wanted: tuple[str, ...], scratch: Path, max_bytes: int) -> HubSnapshot:
    """Download the named files, the safetensors and the card of `OWNER/NAME[@REVISION]`, all from one commit.

    Raises InvalidArgument (INVALID_SOURCE, UNKNOWN_MODEL, MODEL_IS_GATED, BASE_TOO_LARGE), Unavailable (HUB_UNAVAILABLE).
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with @REVISION.")
    # Processes are offline by default; this one was asked to download. The library reads these variables when it is imported.
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub.errors import HTTPError

    try:
        return _download(match["repo"], match["revision"], wanted, scratch, max_bytes)
    except (HTTPError, OSError) as error:
        raise _to_error(error) from None


def _download(repo: str, revision: str | None, wanted: tuple[str, ...], scratch: Path, max_bytes: int) -> HubSnapshot:
    from huggingface_hub import HfApi

    hub = HfApi()
    model = hub.model_info(repo, revision=revision, files_metadata=True)
    files = [file for file in model.siblings or [] if _is_wanted(file.rfilename, wanted)]
    check_size(sum(file.size or 0 for file in files), max_bytes)
    folder = scratch / "hub"
    for file in files:
        hub.hf_hub_download(repo, file.rfilename, revision=model.sha, local_dir=folder)
    # The library's record of its downloads is not part of the model.
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return HubSnapshot(folder, f"hub:{repo}@{model.sha}")


def _is_wanted(path: str, wanted: tuple[str, ...]) -> bool:
    # Subfolders contain other formats of the same model.
    return "/" not in path and (path in wanted or path == CARD or path.endswith(".safetensors"))


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise InvalidArgument (BASE_TOO_LARGE) if a base exceeds the installation's limit."""
    if size_bytes > max_bytes:
        raise InvalidArgument(
            Reason.BASE_TOO_LARGE,
            f"The base has {size_bytes / 2**30:.1f} GiB, over the limit of {max_bytes / 2**30:.1f} GiB. "
            "The operator can raise TAILOR_BASE_MAX_GIB.",
        )


def _to_error(error: Any) -> TailorError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return InvalidArgument(
            Reason.MODEL_IS_GATED, "The hub requires accepting this model's terms. Accept them and set HF_TOKEN."
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | RemoteEntryNotFoundError):
        return InvalidArgument(
            Reason.UNKNOWN_MODEL, "The hub has no such model or revision. If it is private, set HF_TOKEN."
        )
    return Unavailable(Reason.HUB_UNAVAILABLE, f"The hub could not be read ({type(error).__name__}). Try again.")
