"""Downloads a dataset from a hub as Parquet."""

import json
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tailor.cli.hub_files import download_file, hub_address, open_url, status_of
from tailor.errors import InvalidArgument, NotFound, Reason, TailorError, Unavailable

PREFIX = "hub:"
NAME = re.compile(r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:(?P<split>[\w.-]+))?")


def download(source: str, folder: Path) -> list[Path]:
    """Download the Parquet files of `hub:OWNER/NAME[:SPLIT]`; the split is `train` by default. Blocks.

    Raises InvalidArgument (INVALID_SOURCE), NotFound (UNKNOWN_DATASET), Unavailable (HUB_UNAVAILABLE) without network.
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with :SPLIT.")
    try:
        with open_url(f"{hub_address()}/api/datasets/{match['repo']}/parquet") as response:
            urls = _find_urls(json.load(response), match["split"] or "train", source)
        return [download_file(url, folder / f"{number:05d}.parquet") for number, url in enumerate(urls)]
    except (OSError, HTTPException, ValueError) as error:
        raise _to_error(error, source) from None


def _find_urls(listing: Any, split: str, source: str) -> list[str]:
    """The addresses of a split's files, in the first configuration that has it; `default` goes first."""
    configurations = sorted(listing.items(), key=lambda item: item[0] != "default") if isinstance(listing, dict) else []
    for _, splits in configurations:
        if isinstance(splits, dict) and splits.get(split):
            return [str(url) for url in splits[split]]
    known = sorted({name for _, splits in configurations if isinstance(splits, dict) for name in splits})
    raise NotFound(Reason.UNKNOWN_DATASET, f"{source} has no split {split}. It has: {', '.join(known) or 'none'}.")


def _to_error(error: Exception, source: str) -> TailorError:
    if status_of(error) in (401, 403, 404):
        return NotFound(
            Reason.UNKNOWN_DATASET, f"The hub does not show {source} as Parquet. Private data needs HF_TOKEN."
        )
    return Unavailable(
        Reason.HUB_UNAVAILABLE,
        f"The hub could not be read ({type(error).__name__}). Check the network, or download the data and import the file.",
    )
