"""Reads a hub over HTTP. `HF_ENDPOINT` names another hub, `HF_TOKEN` gives access to private models and data."""

import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tailor.errors import InvalidArgument, Reason

HUB = "https://huggingface.co"
TIMEOUT_SECONDS = 60
COPY_BYTES = 1 << 20


def hub_address() -> str:
    """The hub's address."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def open_url(url: str) -> Any:
    """The response. Raises InvalidArgument (INVALID_SOURCE) for an address that is not on the web, and OSError."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InvalidArgument(Reason.INVALID_SOURCE, "The hub's address, and those of its files, must be on the web.")
    request = urllib.request.Request(url)  # noqa: S310 - only http and https
    if token := os.environ.get("HF_TOKEN"):
        # A redirect may lead to another host, which must not get the token.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310 - only http and https  # nosec B310


def download_file(url: str, path: Path) -> Path:
    """Store what an address gives. Raises as `open_url`."""
    with open_url(url) as response, path.open("wb") as file:
        shutil.copyfileobj(response, file, COPY_BYTES)
    return path


def status_of(error: Exception) -> int:
    """The status of the hub's answer; 0 without one."""
    return error.code if isinstance(error, urllib.error.HTTPError) else 0
