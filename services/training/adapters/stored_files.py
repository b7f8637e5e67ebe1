"""Files of the models bucket as a manifest lists them, brought to this machine's disk and verified."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tailor.errors import FailedPrecondition, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


def bring_files(
    store: ObjectStore,
    files: Iterable[Mapping[str, Any]],
    folder: Path,
    wanted: Callable[[str], bool] = lambda _name: True,
) -> None:
    """Download the wanted files into a new folder.

    FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST) where they are not what the manifest says.
    """
    folder.mkdir()
    for file in files:
        name = str(file["path"])
        if Path(name).name != name:
            raise FailedPrecondition(Reason.INVALID_MANIFEST, "The manifest names a file outside its folder.")
        if wanted(name):
            ref = Ref(f"s3://{MODELS}/{file['key']}", str(file["sha256"]), int(file["size_bytes"]))
            store.get_file(ref, folder / name)
