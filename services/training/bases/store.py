"""The bases in the models bucket. A base exists once its manifest does, which is written last, so a killed fetch can be repeated.

Fetching runs in a child process, `python -m services.training.bases.store SOURCE DIRECTORY MAX_BYTES`, so that the service loads no model
library. The child prints one JSON object and ends with the service.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.training.adapters.child_process import answer_parent, disk_full, run_child
from services.training.adapters.manifests import download_files
from services.training.bases.engine_support import AskEngine, assume_common, start_engine
from services.training.bases.files import CAPABILITIES
from services.training.domain import Base
from tailor.blocked_imports import hide_packages
from tailor.codec import load
from tailor.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object

MODULE = "services.training.bases.store"
FETCH_SECONDS = 6 * 3600
MAX_BYTES = 400 * 2**30
PREFIX = "base-"


# Fetches a source into an empty directory of at most that many bytes, and returns what the base's manifest says of it.
Fetch = Callable[[str, Path, int], Mapping[str, Any]]


def fetch_in_child(source: str, target: Path, max_bytes: int) -> Mapping[str, Any]:
    """Run `fetch_here` in a child process. Blocks for up to six hours. Raises InvalidArgument or Unavailable."""
    return run_child(MODULE, [source, str(target), str(max_bytes)], FETCH_SECONDS, "source")


def fetch_here(source: str, target: Path, max_bytes: int, ask: AskEngine = assume_common) -> Mapping[str, Any]:
    """Fetch in this process, which loads the model libraries. Raises InvalidArgument or Unavailable."""
    from services.training.bases.sources import fetch

    return asdict(fetch(source, target, max_bytes, ask))


def fetch_and_ask(source: str, target: Path, max_bytes: int) -> Mapping[str, Any]:
    """Fetch in this process, while the engine starts that says what it serves. Raises InvalidArgument or Unavailable."""
    return fetch_here(source, target, max_bytes, start_engine())


class StoredBases:
    """Bases by name: `bases/NAME/manifest.json`, and their files by digest. Thread-safe; fetches run one at a time."""

    def __init__(
        self, store: ObjectStore, scratch: Path, max_bytes: int = MAX_BYTES, fetch: Fetch = fetch_in_child
    ) -> None:
        self._store = store
        self._scratch = scratch
        self._max_bytes = max_bytes
        self._fetch = fetch
        self._fetching = threading.Lock()

    def find(self, name: str) -> Base | None:
        """A base by name."""
        try:
            return _to_base(name, self._store.read(MODELS, _manifest_key(name)))
        except NotFound:
            return None

    def list(self) -> list[Base]:
        """All bases, by name."""
        keys = [key for key in self._store.list_keys(MODELS, "bases/") if key.endswith("/manifest.json")]
        bases = [self.find(key.split("/")[1]) for key in keys]
        return sorted((base for base in bases if base is not None), key=lambda base: base.name)

    def add(self, name: str, source: str) -> Iterator[str | Base]:
        """Fetch a base. Yields readable progress, then the base. Idempotent.

        Raises InvalidArgument if the source is not a usable causal model, AlreadyExists if the name means other weights.
        """
        yield f"fetching {source}"
        with self._fetching, tempfile.TemporaryDirectory(dir=self._empty_scratch(), prefix=PREFIX) as folder:
            files = Path(folder) / "files"
            files.mkdir()
            inherited = (
                self._inherit(source.removeprefix("adapter:"), Path(folder)) if source.startswith("adapter:") else {}
            )
            described = {**self._fetch(source, files, self._max_bytes), **inherited}
            if quantisation := described.get("quantisation"):
                served = ", and served so" if described.get("published") else ""
                yield f"written in bf16; published as {quantisation}{served}"
            if family := described.get("template"):
                yield f"without a chat template, so with that of {family}, whose ends the base has not learned"
            if left_out := described.get("left_out_parameters"):
                yield f"leaving out {left_out / 1e6:,.1f} million parameters that read no text"
            if (files / CAPABILITIES).exists():
                yield _describe_adapters(json.loads((files / CAPABILITIES).read_text(encoding="utf-8")))
            stored: dict[str, list[dict[str, str | int]]] = {"files": [], "published": []}
            for part, paths in (("files", sorted(files.iterdir())), ("published", described.get("published", ()))):
                for path in map(Path, paths):
                    yield f"storing {path.name}"
                    stored[part].append(self._store_file(path))
            manifest = json.dumps({"name": name, **described, **stored}, sort_keys=True, indent=2).encode()
            yield self._store_manifest(name, manifest)

    def _empty_scratch(self) -> Path:
        """The scratch directory, without leftovers of a killed service. Call it with the lock held."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for leftover in self._scratch.glob(f"{PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return self._scratch

    def download_policy(self, digest: str, folder: Path) -> tuple[dict[str, Any], Base]:
        """Download an adapter and, unless it has all weights, its base into `adapter` and `base`. Returns its manifest, and its base.

        Raises InvalidArgument (UNKNOWN_ADAPTER, NOT_A_POLICY), FailedPrecondition (BASE_CHANGED, CORRUPT_OBJECT), Unavailable (DISK_FULL).
        """
        try:
            data = self._store.read(MODELS, f"adapters/{digest}/manifest.json")
        except NotFound:
            raise InvalidArgument(
                Reason.UNKNOWN_ADAPTER, "There is no such adapter. Name its complete digest."
            ) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise corrupt_object(f"s3://{MODELS}/adapters/{digest}/manifest.json")
        adapter = json.loads(data)
        if adapter["kind"] != "policy":
            raise InvalidArgument(
                Reason.NOT_A_POLICY,
                "A reward adapter scores answers and cannot write any, so it cannot become a base, nor be exported. Name a policy adapter.",
            )
        base = self.find(adapter["base"])
        if base is None or base.digest != adapter["base_digest"]:
            raise FailedPrecondition(
                Reason.BASE_CHANGED, f"The base {adapter['base']!r} is not the one that this adapter was trained on."
            )
        if shutil.disk_usage(folder).free < base.size_bytes + sum(file["size_bytes"] for file in adapter["files"]):
            raise disk_full()
        download_files(self._store, adapter["files"], folder / "adapter")
        if adapter["weights"] != "full":
            download_files(self._store, json.loads(self._store.get(base.manifest))["files"], folder / "base")
        return adapter, base

    def merge(self, digest: str, target: Path) -> None:
        """Write what `download_policy` downloaded next to the target as a whole model. Waits for fetches, and raises as they do."""
        target.mkdir()
        with self._fetching:
            self._fetch(f"adapter:{digest}", target, self._max_bytes)

    def _inherit(self, digest: str, folder: Path) -> dict[str, str]:
        """Download an adapter and its base. Returns the fields that the new base inherits. Raises as `download_policy`."""
        adapter, base = self.download_policy(digest, folder)
        served = digest if adapter.get("not_served_because") else ""
        return {"licence": base.licence, "adapter_digest": digest, "base_digest": base.digest, "serves_adapter": served}

    def _store_file(self, path: Path) -> dict[str, str | int]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        key = f"bases/files/{digest}"
        if not self._store.exists(MODELS, key):
            self._store.put_file(MODELS, key, path)
        return {"path": path.name, "sha256": digest, "size_bytes": path.stat().st_size, "key": key}

    def _store_manifest(self, name: str, manifest: bytes) -> Base:
        existing = self.find(name)
        if existing is None:
            self._store.put(MODELS, _manifest_key(name), manifest, "application/json")
            return _to_base(name, manifest)
        # The same files from another source are the same base, which keeps its first description.
        if _list_sources_files(self._store.get(existing.manifest)) != _list_sources_files(manifest):
            raise AlreadyExists(
                Reason.BASE_EXISTS, f"The name {name!r} already stands for other weights. Choose another name."
            )
        return existing


def _list_sources_files(manifest: bytes) -> list[dict[str, Any]]:
    """The files that came from the source; what this version found out of the base is another."""
    return [file for file in json.loads(manifest)["files"] if file["path"] != CAPABILITIES]


def _describe_adapters(found: Mapping[str, Any]) -> str:
    """Which layers adapters of the base change, in one line."""
    left_out = f"; left as they are: {', '.join(found['left_out'])}" if found["left_out"] else ""
    refusal = f". {found['not_served_because']}" if found["not_served_because"] else ""
    return f"adapters change {', '.join(found['targets'])}{left_out}{refusal}"


def _manifest_key(name: str) -> str:
    return f"bases/{name}/manifest.json"


def _to_base(name: str, manifest: bytes) -> Base:
    described = json.loads(manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    return load(
        Base,
        described,
        name=name,
        digest=digest,
        size_bytes=sum(file["size_bytes"] for file in described["files"]),
        manifest=Ref(f"s3://{MODELS}/{_manifest_key(name)}", digest, len(manifest)),
    )


def main(arguments: list[str]) -> int:
    """The child process. Returns its exit code."""
    # Transformers and peft would load these; no base is stored quantised.
    hide_packages("sklearn", "scipy", "bitsandbytes")
    source, target, max_bytes = arguments
    return answer_parent(lambda: fetch_and_ask(source, Path(target), int(max_bytes)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
