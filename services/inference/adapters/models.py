"""Bases and adapters out of the models bucket, verified, in a cache folder."""

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.inference.adapters import verify, weights
from services.inference.adapters.verify import CONFIG, WEIGHTS, File, refuse
from services.inference.domain import AdapterName, Probe
from tailor.errors import NotFound, Reason, Unavailable
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

BASE_ENDINGS = (".safetensors", ".json", ".txt", ".jinja", ".model")
IGNORED_ENDINGS = (".md", "LICENSE", "NOTICE")


@dataclass(frozen=True)
class BaseModel:
    """A base on disk. The digest is its manifest's SHA-256; `shapes` has (out, in) of its adaptable layers."""

    name: str
    digest: str
    folder: Path
    shapes: weights.Shapes


def fetch_base(store: ObjectStore, name: str, cache: Path) -> BaseModel:
    """Download a base and verify it. Unavailable while it is not in the bucket, FailedPrecondition where it holds anything unsafe."""
    try:
        data = store.read(MODELS, f"bases/{name}/manifest.json")
    except NotFound:
        raise Unavailable(Reason.NO_BASE, f"The base {name} is not in the models bucket yet.") from None
    digest = hashlib.sha256(data).hexdigest()
    files = [f for f in verify.read_files(verify.read_manifest(data)) if not f.path.endswith(IGNORED_ENDINGS)]
    if any(not file.path.endswith(BASE_ENDINGS) for file in files):
        raise refuse(Reason.UNSAFE_FILE, "A base is safetensors, JSON and tokenizer files; nothing else is loaded.")
    folder = cache / "bases" / digest
    download(store, files, folder)
    parts = [weights.read_header(folder / file.path) for file in files if file.path.endswith(".safetensors")]
    headers = {tensor: entry for part in parts for tensor, entry in part.items()}
    return BaseModel(name, digest, folder, weights.linear_shapes(headers))


class AdapterLibrary:
    """Fetches adapters for one base."""

    def __init__(self, store: ObjectStore, base: BaseModel, cache: Path, max_rank: int) -> None:
        self._store = store
        self._base = base
        self._cache = cache
        self._max_rank = max_rank

    def fetch(self, adapter: AdapterName) -> Path:
        """A folder with the adapter's verified files; FailedPrecondition with the reason where anything is not as it must be."""
        try:
            files = verify.check_adapter_manifest(self._manifest(adapter), self._base.digest)
            verify.check_sizes(files, weights.largest(self._base.shapes, self._max_rank))
            folder = self._cache / "adapters" / adapter.digest
            download(self._store, files, folder)
        except NotFound:
            raise refuse(Reason.MISSING_FILE, "A file of the adapter is not in the models bucket.") from None
        lora = verify.check_config((folder / CONFIG).read_bytes(), self._max_rank)
        header = weights.read_header(folder / WEIGHTS)
        weights.check_weights(header, lora, self._base.shapes)
        weights.check_numbers(folder / WEIGHTS, header)
        return folder

    def probes(self, adapter: AdapterName) -> list[Probe]:
        """The adapter's probe rows; FailedPrecondition where they are not as they must be."""
        try:
            return verify.read_probes(self._manifest(adapter))
        except NotFound:
            raise refuse(Reason.MISSING_FILE, "The adapter's manifest is not in the models bucket.") from None

    def _manifest(self, adapter: AdapterName) -> Mapping[str, Any]:
        named = verify.SHA256.fullmatch(adapter.digest) is not None and adapter.digest == adapter.manifest.sha256
        if not named or adapter.manifest.bucket != MODELS:
            raise refuse(Reason.WRONG_DIGEST, "The adapter's name is not its manifest's digest.")
        if adapter.manifest.size_bytes > verify.MAX_MANIFEST_BYTES:
            raise refuse(Reason.INVALID_MANIFEST, "The manifest is too large.")
        return verify.read_manifest(self._store.get(adapter.manifest))

    def drop(self, digest: str) -> bool:
        """Remove an adapter's files from this machine."""
        if not verify.SHA256.fullmatch(digest):
            return False
        folder = self._cache / "adapters" / digest
        held = folder.is_dir()
        shutil.rmtree(folder, ignore_errors=True)
        return held


def download(store: ObjectStore, files: Sequence[File], folder: Path) -> None:
    """Bring files into a folder; those there already are verified again, for the cache may have been touched."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {file.path for file in files}
    for stranger in folder.iterdir():
        if stranger.name not in wanted:
            stranger.unlink()
    for file in files:
        target = folder / file.path
        if target.is_file() and _sha256(target) == file.sha256:
            continue
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            part = Path(fresh) / file.path
            store.get_file(Ref(f"s3://{MODELS}/{file.key}", file.sha256, file.size_bytes), part)
            part.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
