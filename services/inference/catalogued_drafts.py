"""Waiting for drafts to be in the registry."""

import time

from services.inference.ports import DraftArchive
from tailor.errors import NotFound

CATALOGUE_SECONDS = 10.0
PAUSE_SECONDS = 0.05


def is_catalogued(archive: DraftArchive, draft_id: str) -> bool:
    """True if the registry knows the draft with its text."""
    try:
        return archive.draft(draft_id).draft.text is not None
    except NotFound:
        return False


def wait_until_catalogued(archive: DraftArchive, draft_id: str) -> None:
    """Block until the registry has the draft with its text, for at most CATALOGUE_SECONDS. A slow broker is not a failure."""
    end = time.monotonic() + CATALOGUE_SECONDS
    while not is_catalogued(archive, draft_id) and time.monotonic() < end:
        time.sleep(PAUSE_SECONDS)
