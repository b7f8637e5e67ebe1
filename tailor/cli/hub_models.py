"""Downloads a detector's model from a hub at one commit."""

import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tailor.cli.hub_files import download_file, hub_address, open_url, status_of
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError, Unavailable

NAME = re.compile(r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]{1,200}))?")
MAX_LISTING_BYTES = 8 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")
# Files of a token classifier or GLiNER. Subfolders have other formats; code is never downloaded.
WANTED = re.compile(r"[\w.-]+\.(?:safetensors|json|txt|model)|README\.md|LICEN[CS]E(?:\.\w+)?")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class HubModel:
    """A model at one commit: its repository, commit, the licence in its card, and files with their sizes in bytes."""

    repo: str
    commit: str
    licence: str
    files: Mapping[str, int]

    @property
    def source(self) -> str:
        return f"hub:{self.repo}@{self.commit}"

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())


def find_model(source: str) -> HubModel:
    """Ask the hub for `hub:OWNER/NAME[@REVISION]`; without a revision, for the newest commit. Blocks.

    Raises InvalidArgument (INVALID_SOURCE, MODEL_IS_GATED, PICKLE_REFUSED), NotFound (UNKNOWN_MODEL), Unavailable (HUB_UNAVAILABLE).
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with @REVISION.")
    repo = match["repo"]
    revision = urllib.parse.quote(match["revision"] or "main", safe="")
    try:
        with open_url(f"{hub_address()}/api/models/{repo}/revision/{revision}?blobs=true") as response:
            listing = json.loads(response.read(MAX_LISTING_BYTES))
        model = _model(repo, listing)
    except (OSError, HTTPException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _to_error(error, source) from None
    if not any(name.endswith(".safetensors") for name in model.files):
        raise InvalidArgument(
            Reason.PICKLE_REFUSED,
            f"{source} has no weights as safetensors, only pickles, which can run code. Ask its author, or convert it in a sandbox.",
        )
    return model


def download(model: HubModel, folder: Path) -> None:
    """Download the model's files into an empty folder. Blocks. Raises Unavailable (HUB_UNAVAILABLE)."""
    try:
        for name in sorted(model.files):
            download_file(f"{hub_address()}/{model.repo}/resolve/{model.commit}/{name}", folder / name)
            if (folder / name).stat().st_size != model.files[name]:
                raise OSError(f"{name} is incomplete")
    except (OSError, HTTPException, ValueError) as error:
        raise _to_error(error, model.source) from None


def _model(repo: str, listing: Any) -> HubModel:
    commit = str(listing["sha"])
    if not COMMIT.fullmatch(commit):
        raise ValueError("no commit")
    named = {str(item["rfilename"]): int(item.get("size") or 0) for item in listing.get("siblings") or ()}
    files = {name: size for name, size in named.items() if WANTED.fullmatch(name) and not name.endswith(PICKLES)}
    return HubModel(repo, commit, _licence(listing), files)


def _licence(listing: Any) -> str:
    """The licence in the card, in small letters; `unknown` if there is none."""
    card = listing.get("cardData") or {}
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    names: Iterable[Any] = stated if isinstance(stated, list) else [stated]
    tags = (str(tag).removeprefix("license:") for tag in listing.get("tags") or () if str(tag).startswith("license:"))
    known = [str(name).lower() for name in names if name] or list(tags)
    return ", ".join(known)[:200] or UNKNOWN


def _to_error(error: Exception, source: str) -> TailorError:
    status = status_of(error)
    if status in (401, 403):
        return InvalidArgument(
            Reason.MODEL_IS_GATED,
            f"The hub does not give {source} to everybody. Accept its terms there and set HF_TOKEN.",
        )
    if status == 404:
        return NotFound(Reason.UNKNOWN_MODEL, f"The hub does not know {source}.")
    return Unavailable(
        Reason.HUB_UNAVAILABLE,
        f"The hub could not be read ({type(error).__name__}). Check the network and run the command again.",
    )
