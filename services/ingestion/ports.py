"""What ingestion needs from outside and has several implementations of."""

from collections.abc import Callable
from typing import Protocol

from services.ingestion.domain import File, FileReference

# Has every service erase the document with this id. Idempotent for the same request id, the second argument. May block; raises Unavailable
# without the registry.
RequestErasure = Callable[[str, str], None]


class Fetcher(Protocol):
    """Gets files from the places where their publishers store them."""

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        """Fetch a file. Blocks, at most for its time limit.

        Raises Rejected if the file is forbidden, missing or too large, and Unavailable if a later attempt may succeed.
        """
        ...
