"""Datasets as synthetic stores them, for tests and benches of the services that read them."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tailor.api.events.v1 import models_pb2
from tailor.datasets import TRAIN, DatasetFile, DatasetManifest, IdFiles, SplitFiles
from tailor.planted_secrets import MEDIA_TYPE, PlantedSecret, write_secrets
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind
from tailor.wire import from_ref

Rows = Sequence[Mapping[str, Any]]


def store_dataset(
    store: ObjectStore, splits: Mapping[str, Rows], *, rows_per_file: int = 1000, **fields: Any
) -> tuple[Ref, DatasetManifest]:
    """Store a dataset with these splits, its sources and judgements taken from the rows. `fields` are others of its manifest.

    Returns the manifest's reference and the manifest.
    """
    manifest = DatasetManifest(
        kind=DatasetKind.SFT,
        specialist="reports",
        splits={name: _store_split(store, rows, rows_per_file) for name, rows in splits.items()},
        sources=store_ids(store, "document_id", _ids(splits, "document_ids"), rows_per_file),
        judgements=store_ids(store, "judgement_id", _ids(splits, "judgement_ids"), rows_per_file),
    )
    return store_manifest(store, replace(manifest, **fields))


def store_manifest(store: ObjectStore, manifest: DatasetManifest) -> tuple[Ref, DatasetManifest]:
    """Store a manifest under its digest."""
    data = json.dumps(manifest.as_json()).encode()
    return store.put(DATASETS, f"{hashlib.sha256(data).hexdigest()}/manifest.json", data), manifest


def store_secrets(store: ObjectStore, planted: Sequence[PlantedSecret]) -> DatasetFile:
    """Store the list of secrets that were planted in rows, for the manifest's `planted_secrets`."""
    data = write_secrets(planted)
    ref = store.put(DATASETS, f"files/{hashlib.sha256(data).hexdigest()}.jsonl", data, MEDIA_TYPE)
    return DatasetFile(ref, len(planted))


def store_ids(store: ObjectStore, column: str, ids: Sequence[str], rows_per_file: int = 1000) -> IdFiles:
    """Store ids, sorted, in as many files as they need."""
    return IdFiles(len(ids), _store_files(store, [{column: name} for name in sorted(ids)], rows_per_file))


def built(
    store: ObjectStore, digest: str, specialist: str, document_ids: Sequence[str] = (), **fields: Any
) -> models_pb2.DatasetBuilt:
    """Store a dataset of these documents under a made-up digest, and return its event. `fields` are others of its manifest."""
    rows = [{"row_id": f"row_{document_id}", "document_ids": [document_id]} for document_id in document_ids]
    ref, manifest = store_dataset(store, {TRAIN: rows}, rows_per_file=2, specialist=specialist, **fields)
    return models_pb2.DatasetBuilt(
        digest=digest,
        specialist=specialist,
        manifest=from_ref(ref),
        train_rows=manifest.split(TRAIN).rows,
        documents=manifest.sources.count,
        figures=models_pb2.DatasetFigures(**asdict(manifest.figures)),
    )


def _store_split(store: ObjectStore, rows: Rows, rows_per_file: int) -> SplitFiles:
    return SplitFiles(len(rows), sum(row.get("tokens", 0) for row in rows), _store_files(store, rows, rows_per_file))


def _store_files(store: ObjectStore, rows: Rows, rows_per_file: int) -> tuple[DatasetFile, ...]:
    parts = [rows[start : start + rows_per_file] for start in range(0, len(rows), rows_per_file)]
    return tuple(DatasetFile(_store_file(store, part), len(part)) for part in parts)


def _store_file(store: ObjectStore, rows: Rows) -> Ref:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(list(rows)), buffer)
    data = buffer.getvalue()
    return store.put(DATASETS, f"files/{hashlib.sha256(data).hexdigest()}.parquet", data)


def _ids(splits: Mapping[str, Rows], column: str) -> list[str]:
    return sorted({name for rows in splits.values() for row in rows for name in row.get(column, ())})
