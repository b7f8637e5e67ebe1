"""The bases in the models bucket. Fetching one runs in a process of its own, so that the service loads no model library.

`python -m services.training.adapters.bases SOURCE DIRECTORY` is that process: it prints one JSON object, what it fetched or why it did not.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.training.domain import Base
from tailor.errors import AlreadyExists, InvalidArgument, NotFound, TailorError, Unavailable
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

FETCH_SECONDS = 6 * 3600


class StoredBases:
    """Bases by name: `bases/NAME/manifest.json`, and their files by digest."""

    def __init__(self, store: ObjectStore, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._turn = threading.Lock()

    def find(self, name: str) -> Base | None:
        """A base by name."""
        try:
            return _to_base(name, self._store.read(MODELS, _manifest_key(name)))
        except NotFound:
            return None

    def list(self) -> list[Base]:
        """All bases, by name."""
        keys = [key for key in self._store.list_keys(MODELS, "bases/") if key.endswith("/manifest.json")]
        found = [self.find(key.split("/")[1]) for key in keys]
        return sorted((base for base in found if base is not None), key=lambda base: base.name)

    def add(self, name: str, source: str) -> Iterator[str | Base]:
        """Fetch a base and keep it; the same base again makes no new object."""
        yield f"fetching {source}"
        with self._turn, tempfile.TemporaryDirectory(dir=self._made_scratch(), prefix="base-") as folder:
            files = Path(folder) / "files"
            files.mkdir()
            described = _fetch_apart(source, files)
            entries = []
            for path in sorted(files.iterdir()):
                yield f"storing {path.name}"
                entries.append(self._keep_file(path))
            manifest = json.dumps({"name": name, **described, "files": entries}, sort_keys=True, indent=2).encode()
            yield self._keep_manifest(name, manifest)

    def _made_scratch(self) -> Path:
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch

    def _keep_file(self, path: Path) -> dict[str, str | int]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"bases/files/{digest}"
        if not self._store.exists(MODELS, key):
            self._store.put_file(MODELS, key, path)
        return {"path": path.name, "sha256": digest, "size_bytes": path.stat().st_size, "key": key}

    def _keep_manifest(self, name: str, manifest: bytes) -> Base:
        existing = self.find(name)
        added = _to_base(name, manifest)
        if existing is None:
            self._store.put(MODELS, _manifest_key(name), manifest, "application/json")
        elif existing.digest != added.digest:
            raise AlreadyExists(
                "BASE_EXISTS", f"The name {name!r} means other weights; adapters rest on them. Choose another."
            )
        return added


def _manifest_key(name: str) -> str:
    return f"bases/{name}/manifest.json"


def _to_base(name: str, manifest: bytes) -> Base:
    described = json.loads(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    return Base(
        name=name,
        digest=digest,
        licence=described["licence"],
        parameters=described["parameters"],
        size_bytes=sum(file["size_bytes"] for file in described["files"]),
        manifest=Ref(f"s3://{MODELS}/{_manifest_key(name)}", digest, len(manifest)),
    )


def _fetch_apart(source: str, target: Path) -> dict[str, Any]:
    """Fetch in a child process; what it fetched, or the error that it ended with."""
    command = [sys.executable, "-m", "services.training.adapters.bases", source, str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("FETCH_TIMEOUT", "The base could not be fetched in six hours.") from None
    lines = done.stdout.strip().splitlines()
    try:
        said: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    except ValueError:
        said = {}
    if done.returncode == 0 and said:
        return said
    if said.get("retryable"):
        raise Unavailable(said["reason"], said["message"])
    reason, message = said.get("reason", "FETCH_FAILED"), said.get("message", "The base could not be read as a model.")
    raise InvalidArgument(reason, message, field_violations={"source": message})


def main(arguments: list[str]) -> int:
    """The child process."""
    from services.training.adapters.base_sources import fetch

    source, target = arguments
    try:
        fetched = fetch(source, Path(target))
    except TailorError as error:
        print(json.dumps({"reason": error.reason, "message": error.message, "retryable": error.retryable}))
        return 1
    finally:
        shutil.rmtree(Path(target).parent / "hub", ignore_errors=True)
    print(json.dumps(asdict(fetched)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
