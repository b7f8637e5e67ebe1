"""Bases and adapters of the models bucket, verified, in a folder of this machine."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.inference.adapters import verify, weights
from services.inference.adapters.verify import CONFIG, WEIGHTS, AdaptedLayers, ManifestFile, refuse
from services.inference.domain import AdapterRef, Probe
from tailor.errors import NotFound, Reason, Unavailable
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

# What training found out of a base when it was added.
CAPABILITIES = "capabilities.json"
# Those of a base's files that differ between its bf16 and its quantised weights.
DIFFERS_IF_QUANTISED = re.compile(r"^config\.json$|\.safetensors(\.index\.json)?$")
BASE_ENDINGS = (".safetensors", ".json", ".txt", ".jinja", ".model")
IGNORED_ENDINGS = (".md", "LICENSE", "NOTICE")


@dataclass(frozen=True)
class StoredBase:
    """A base on disk. The digest is its manifest's SHA-256. `layers` are those that adapters may change, `shapes` their sizes (out, in) by
    module, and `norm` is the largest Frobenius norm among them. `merged` is the digest of the adapter that its weights serve, if any.
    The engine loads `served`, which are the weights of `folder` or the quantised ones that these were read from.
    """

    name: str
    digest: str
    folder: Path
    served: Path
    layers: AdaptedLayers
    shapes: weights.Shapes
    norm: float
    merged: str = ""


def fetch_base(store: ObjectStore, name: str, cache: Path, *, quantised: bool = False) -> StoredBase:
    """Download a base and verify it; also the quantised weights as which it was published, if the engine takes them. Blocks.

    Raises Unavailable (NO_BASE) while it is not in the bucket, FailedPrecondition if it does not verify or has an unsafe file.
    """
    try:
        data = store.read(MODELS, f"bases/{name}/manifest.json")
    except NotFound:
        raise Unavailable(
            Reason.NO_BASE,
            f"The base {name} is not in the models bucket yet. Add it with `tailor model add {name} SOURCE`.",
        ) from None
    digest = hashlib.sha256(data).hexdigest()
    manifest = verify.read_manifest(data)
    files = _read_base_files(manifest.get("files"))
    folder = served = cache / "bases" / digest
    download(store, files, folder)
    if quantised and (published := _read_base_files(manifest.get("published", []))):
        served = folder.with_name(f"{digest}-published")
        common = [file for file in files if not DIFFERS_IF_QUANTISED.search(file.path)]
        download(store, [*common, *published], served)
    parts = {file.path: weights.read_header(folder / file.path) for file in files if file.path.endswith(".safetensors")}
    headers = {tensor: entry for part in parts.values() for tensor, entry in part.items()}
    layers = _read_layers(folder / CAPABILITIES)
    targets = layers.targets
    norm = max((weights.largest_norm(folder / path, part, targets) for path, part in parts.items()), default=0.0)
    shapes, merged = weights.linear_shapes(headers, targets), str(manifest.get("serves_adapter", ""))
    return StoredBase(name, digest, folder, served, layers, shapes, norm, merged)


def _read_base_files(entries: Any) -> list[ManifestFile]:
    """Raises FailedPrecondition (UNSAFE_FILE), and as `verify.read_files`."""
    files = [file for file in verify.read_files({"files": entries}) if not file.path.endswith(IGNORED_ENDINGS)]
    if any(not file.path.endswith(BASE_ENDINGS) for file in files):
        raise refuse(Reason.UNSAFE_FILE, "A base may have safetensors, JSON and tokenizer files only.")
    return files


def _read_layers(path: Path) -> AdaptedLayers:
    """Raises FailedPrecondition (INVALID_MANIFEST)."""
    return verify.read_adapted_layers(path.read_bytes() if path.is_file() else b"{}")


class VerifiedLibrary:
    """Verified adapters of one base. Every method raises Unavailable while the object store does not answer."""

    def __init__(self, store: ObjectStore, base: StoredBase, cache: Path, max_rank: int) -> None:
        self._store = store
        self._base = base
        self._cache = cache
        self._layers = replace(base.layers, max_rank=min(max_rank, base.layers.max_rank))

    def fetch(self, adapter: AdapterRef) -> Path:
        """A folder with the adapter's verified files. Raises FailedPrecondition if the adapter does not verify."""
        try:
            files = verify.check_adapter_manifest(self._manifest(adapter), self._base.digest)
            verify.check_sizes(files, weights.max_weight_bytes(self._base.shapes, self._layers.max_rank))
            folder = self._cache / "adapters" / adapter.digest
            download(self._store, files, folder)
        except NotFound:
            raise refuse(Reason.MISSING_FILE, "A file of the adapter is missing in the models bucket.") from None
        lora = verify.check_config((folder / CONFIG).read_bytes(), self._layers)
        header = weights.read_header(folder / WEIGHTS)
        weights.check_weights(header, lora, self._base.shapes)
        weights.check_numbers(folder / WEIGHTS, header)
        weights.check_magnitudes(folder / WEIGHTS, header, lora, self._base.norm)
        return folder

    def probes(self, adapter: AdapterRef) -> list[Probe]:
        """The adapter's probe rows; errors as in `fetch`."""
        try:
            return verify.read_probes(self._manifest(adapter))
        except NotFound:
            raise refuse(Reason.MISSING_FILE, "The adapter's manifest is missing in the models bucket.") from None

    def _manifest(self, adapter: AdapterRef) -> Mapping[str, Any]:
        is_digest = verify.SHA256.fullmatch(adapter.digest) is not None and adapter.digest == adapter.manifest.sha256
        if not is_digest or adapter.manifest.bucket != MODELS:
            raise refuse(Reason.WRONG_DIGEST, "The adapter's digest must be its manifest's SHA-256.")
        if adapter.manifest.size_bytes > verify.MAX_MANIFEST_BYTES:
            raise refuse(Reason.INVALID_MANIFEST, "The manifest is too large.")
        return verify.read_manifest(self._store.get(adapter.manifest))

    def drop(self, digest: str) -> bool:
        """Remove an adapter's files from this machine; True if there were any."""
        if not verify.SHA256.fullmatch(digest):
            return False
        folder = self._cache / "adapters" / digest
        existed = folder.is_dir()
        shutil.rmtree(folder, ignore_errors=True)
        return existed


def download(store: ObjectStore, files: Sequence[ManifestFile], folder: Path) -> None:
    """Download files into a folder, and remove all others from it.

    Existing files are verified again, because somebody may have changed them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {file.path for file in files}
    for existing in folder.iterdir():
        if existing.name not in names:
            existing.unlink()
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
