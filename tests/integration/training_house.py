"""Shared by tests of training: rows and pairs of a small language, stored datasets, and changed tiny recipes."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from services.training.recipe import Recipe, load_recipe
from tailor.storage.ref import Ref
from tests import datasets
from tests.unit.training.stores import FileStore

WORDS = [
    "synergistic",
    "integration",
    "control",
    "envelope",
    "friction",
    "ledger",
    "anchor",
    "obligation",
    "readiness",
    "horizon",
]


def sentence(number: int, length: int) -> str:
    """Words in an order that depends on the number."""
    return " ".join(WORDS[(number * 7 + place * 3) % len(WORDS)] for place in range(length))


def rows(count: int = 24) -> list[dict[str, Any]]:
    """Rows to train on, as synthetic writes them."""
    return [
        {
            "row_id": f"row_{number:03}",
            "task": "section",
            "document_ids": [f"doc_{number}"],
            "messages": [
                {"role": "system", "content": "Write in the house style."},
                {"role": "user", "content": sentence(number, 6)},
                {"role": "assistant", "content": sentence(number + 3, 12 + number % 5)},
            ],
            "made_by": "structure",
        }
        for number in range(count)
    ]


def pairs(count: int = 24, first: int = 0) -> list[dict[str, Any]]:
    """Preference rows in which the short answer was chosen."""
    return [
        {
            "row_id": f"pair_{number:03}",
            "messages": [{"role": "user", "content": sentence(number, 6)}],
            "chosen": sentence(number + 1, 4 + number % 3),
            "rejected": sentence(number + 2, 14 + number % 3),
            "document_ids": [],
            "judgement_ids": [f"judgement_{number}"],
            "made_by": "judgement",
        }
        for number in range(first, first + count)
    ]


def write_rows(content: list[dict[str, Any]], path: Path) -> Path:
    """Write the rows as Parquet and return the path."""
    parquet.write_table(pa.Table.from_pylist(content), path)
    return path


def store_dataset(store: FileStore, **splits: list[dict[str, Any]]) -> Ref:
    """Store a dataset with these splits and return its manifest's reference."""
    manifest, _ = datasets.store_dataset(store, splits, rows_per_file=10)
    return manifest


def recipe(**changes: Any) -> Recipe:
    """The recipe `tiny` with changes; tables are merged key by key."""
    settings = load_recipe("tiny").model_dump()
    for name, value in changes.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    return Recipe.model_validate(settings)
