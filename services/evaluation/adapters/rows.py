"""Held-out and train rows of a dataset, read from the Parquet files that its manifest names."""

import heapq
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from services.evaluation.domain import HeldOutRow, HeldOutSet, RankedPair, spread_rows
from services.evaluation.ports import Batches
from tailor.datasets import HELD_OUT, TRAIN, DatasetFile, DatasetManifest
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

BATCH_ROWS = 256
CRITIQUE = "critique"


class StoredHeldOutRows:
    """Reads the held-out split, file by file: first the ids, tasks and documents of all rows, then the chosen rows."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def held_out(self, manifest: Ref, max_rows: int, max_answers: int) -> HeldOutSet:
        """At most `max_rows` held-out rows, evenly from all tasks and documents and always the same ones.

        Of them `max_answers` are answered, all if 0.

        Blocks. Raises FailedPrecondition (INVALID_DATASET, INVALID_MANIFEST) if the dataset is invalid.
        """
        files = DatasetManifest.parse(self._store.get(manifest)).split(HELD_OUT).files
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder, reading_rows(manifest):
            paths = download(self._store, files, Path(folder))
            columns = ["row_id", "task", "document_ids"]
            keys = (
                (record["row_id"], record["task"], tuple(record["document_ids"]))
                for record in read_records(paths, columns)
            )
            chosen = set(spread_rows(keys, max_rows))
            rows = [to_row(record) for record in read_records(paths, None) if record["row_id"] in chosen]
        rows.sort(key=lambda row: row.row_id)
        answered = spread_rows(((row.row_id, row.task, row.document_ids) for row in rows), max_answers or len(rows))
        total = sum(file.rows for file in files)
        # All rows of a dataset of judgements are pairs, and none of another one.
        total_pairs = total if any(row.rejected is not None for row in rows) else 0
        return HeldOutSet(tuple(rows), frozenset(answered), total, total_pairs=total_pairs)

    def ranked_pairs(self, manifest: Ref, limit: int) -> list[RankedPair]:
        """At most `limit` pairs of a dataset of ranked drafts that people ordered, of both splits, always the same ones.

        Blocks and raises as `held_out`.
        """
        content = DatasetManifest.parse(self._store.get(manifest))
        files = [file for split in (TRAIN, HELD_OUT) for file in content.split(split).files]
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder, reading_rows(manifest):
            paths = download(self._store, files, Path(folder))
            records = read_records(paths, ["row_id", "task"])
            # A revision was preferred by a teacher and a judge model, and not by an expert.
            keys = (record["row_id"] for record in records if record["task"] != CRITIQUE)
            chosen = set(heapq.nsmallest(limit, keys, key=lambda key: sha256(key.encode()).digest()))
            return [_to_pair(record) for record in read_records(paths, None) if record["row_id"] in chosen]


def download(store: ObjectStore, files: Sequence[DatasetFile], folder: Path) -> list[Path]:
    """Fetch and verify files of a dataset, in their order."""
    paths = [folder / f"{number:06}.parquet" for number in range(len(files))]
    for file, path in zip(files, paths, strict=True):
        store.get_file(file.ref, path)
    return paths


@contextmanager
def reading_rows(manifest: Ref) -> Iterator[None]:
    """Raise FailedPrecondition (INVALID_DATASET) for rows that are not as the contract says."""
    try:
        yield
    except (ValueError, LookupError, TypeError, pyarrow.ArrowException):
        raise FailedPrecondition(
            Reason.INVALID_DATASET, "The dataset does not match its contract.", uri=manifest.uri
        ) from None


def read_records(paths: Sequence[Path], columns: list[str] | None) -> Iterator[dict[str, Any]]:
    """The rows with these columns, or with all, one batch in memory."""
    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                yield from batch.to_pylist()


def _to_pair(record: dict[str, Any]) -> RankedPair:
    prompt = "\n\n".join(message["content"] for message in record["messages"])
    return RankedPair(record["row_id"], tuple(record["document_ids"]), prompt, record["chosen"], record["rejected"])


def to_row(record: dict[str, Any]) -> HeldOutRow:
    """A row of either kind. The reference is the last message (sft) or the chosen answer (preference)."""
    messages = [(message["role"], message["content"]) for message in record["messages"]]
    reference = record["chosen"] if "chosen" in record else messages.pop()[1]
    return HeldOutRow(
        row_id=record["row_id"],
        task=record["task"],
        document_ids=tuple(record["document_ids"]),
        messages=tuple(messages),
        reference=reference,
        language=record.get("language") or "",
        key_insights=record.get("key_insights") or "",
        rejected=record.get("rejected"),
    )


@contextmanager
def open_train_rows(store: ObjectStore, manifests: Sequence[Ref]) -> Iterator[Batches]:
    """A `ports.OpenTrainRows` of a store."""
    with tempfile.TemporaryDirectory(prefix="tailor-train-") as folder:
        paths = []
        for number, manifest in enumerate(manifests):
            (part := Path(folder) / str(number)).mkdir()
            paths.append(download(store, DatasetManifest.parse(store.get(manifest)).split(TRAIN).files, part))
        yield lambda: itertools.chain.from_iterable(map(_read_batches, manifests, paths))


def _read_batches(manifest: Ref, paths: Sequence[Path]) -> Iterator[Sequence[HeldOutRow]]:
    with reading_rows(manifest):
        records = read_records(paths, None)
        while batch := [to_row(record) for record in itertools.islice(records, BATCH_ROWS)]:
            yield batch
