"""The bases in the models bucket. Fetching one runs in a process of its own, so that the service loads no model library.

`python -m services.training.bases.store SOURCE DIRECTORY MAX_BYTES` is that process: it prints one JSON object, what it fetched or why
it did not, and ends with the service. A base is there once its manifest is, which is written last; what a killed fetch left is used by
the next.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from services.training.adapters import child_process as apart
from services.training.adapters.stored_files import bring_files
from services.training.domain import Base
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

MODULE = "services.training.bases.store"
FETCH_SECONDS = 6 * 3600
MAX_BYTES = 400 * 2**30
PREFIX = "base-"


class StoredBases:
    """Bases by name: `bases/NAME/manifest.json`, and their files by digest."""

    def __init__(self, store: ObjectStore, scratch: Path, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._scratch = scratch
        self._max_bytes = max_bytes
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
        with self._turn, tempfile.TemporaryDirectory(dir=self._emptied_scratch(), prefix=PREFIX) as folder:
            files = Path(folder) / "files"
            files.mkdir()
            carried = self._bring_adapter(source.removeprefix("adapter:"), Path(folder)) if _is_adapter(source) else {}
            arguments = [source, str(files), str(self._max_bytes)]
            described = apart.ask(MODULE, arguments, FETCH_SECONDS, "source") | carried
            entries = []
            for path in sorted(files.iterdir()):
                yield f"storing {path.name}"
                entries.append(self._keep_file(path))
            manifest = json.dumps({"name": name, **described, "files": entries}, sort_keys=True, indent=2).encode()
            yield self._keep_manifest(name, manifest)

    def _emptied_scratch(self) -> Path:
        """The scratch directory, without what a killed service left in it. Called in turn: nobody else is at work there."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for left in self._scratch.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        return self._scratch

    def _bring_adapter(self, digest: str, folder: Path) -> dict[str, str]:
        """Bring an adapter, and its base where that is needed, beside the place of the new one; what the new one inherits.

        InvalidArgument (UNKNOWN_ADAPTER, NOT_A_POLICY), FailedPrecondition (BASE_CHANGED, CORRUPT_OBJECT).
        """
        try:
            data = self._store.read(MODELS, f"adapters/{digest}/manifest.json")
        except NotFound:
            raise InvalidArgument(Reason.UNKNOWN_ADAPTER, "There is no such adapter; name the whole digest.") from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise FailedPrecondition(Reason.CORRUPT_OBJECT, "The adapter's manifest is not what its name says.")
        adapter = json.loads(data)
        if adapter["kind"] != "policy":
            raise InvalidArgument(
                Reason.NOT_A_POLICY, "A reward adapter scores answers and writes none; it makes no base."
            )
        base = self.find(adapter["base"])
        if base is None or base.digest != adapter["base_digest"]:
            raise FailedPrecondition(
                Reason.BASE_CHANGED, f"The base {adapter['base']!r} is not the one that this adapter was trained on."
            )
        manifest = json.loads(self._store.get(base.manifest))
        bring_files(self._store, adapter["files"], folder / "adapter")
        if adapter["weights"] != "full":
            bring_files(self._store, manifest["files"], folder / "base")
        return {"licence": base.licence, "adapter_digest": digest, "base_digest": base.digest}

    def _keep_file(self, path: Path) -> dict[str, str | int]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"bases/files/{digest}"
        if not self._store.exists(MODELS, key):
            self._store.put_file(MODELS, key, path)
        return {"path": path.name, "sha256": digest, "size_bytes": path.stat().st_size, "key": key}

    def _keep_manifest(self, name: str, manifest: bytes) -> Base:
        existing = self.find(name)
        if existing is None:
            self._store.put(MODELS, _manifest_key(name), manifest, "application/json")
            return _to_base(name, manifest)
        # The same files from elsewhere are the same base: it keeps what was said of it first.
        if json.loads(self._store.get(existing.manifest))["files"] != json.loads(manifest)["files"]:
            raise AlreadyExists(
                Reason.BASE_EXISTS, f"The name {name!r} means other weights; adapters rest on them. Choose another."
            )
        return existing


def _is_adapter(source: str) -> bool:
    return source.startswith("adapter:")


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


def main(arguments: list[str]) -> int:
    """The child process."""
    from services.training.bases.sources import fetch

    source, target, max_bytes = arguments
    return apart.answer(lambda: asdict(fetch(source, Path(target), int(max_bytes))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
