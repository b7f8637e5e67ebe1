"""Train rows of a dataset, read from the Parquet files that its manifest names."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from services.evaluation.adapters.rows import BATCH_ROWS, download, read_records, reading_rows, to_row
from services.evaluation.domain import HeldOutRow
from services.evaluation.ports import HouseExamples, TrainSplit
from tailor.datasets import TRAIN, DatasetManifest
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredTrainRows(HouseExamples):
    """Fetches the whole split, which a context removes again."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @contextmanager
    def open(self, manifest: Ref) -> Iterator[TrainSplit]:
        files = DatasetManifest.parse(self._store.get(manifest)).split(TRAIN).files
        with tempfile.TemporaryDirectory(prefix="tailor-train-") as folder:
            yield _Files(manifest, download(self._store, files, Path(folder)))


class _Files(TrainSplit):
    def __init__(self, manifest: Ref, paths: Sequence[Path]) -> None:
        self._manifest = manifest
        self._paths = paths

    def batches(self) -> Iterator[Sequence[HeldOutRow]]:
        batch: list[HeldOutRow] = []
        with reading_rows(self._manifest):
            for record in read_records(self._paths, None):
                batch.append(to_row(record))
                if len(batch) == BATCH_ROWS:
                    yield batch
                    batch = []
        if batch:
            yield batch
