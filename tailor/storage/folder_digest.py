"""The digest of a folder's files, by which a model on disk is pinned."""

import hashlib
from pathlib import Path

CHUNK = 1 << 20


def digest_of(folder: Path) -> str:
    """The SHA-256 over the names and contents of a folder's files, compiled Python aside. Reads every file."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    total.update(chunk)
    return total.hexdigest()
