"""Encoded rows on disk are the same as those in memory."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy
import pytest
from pyarrow import Table, parquet

from services.training.methods.held_out import choose_stored
from services.training.methods.rows import fill_bins, keep_fitting, pack, pad_bins, to_columns
from services.training.methods.stored_rows import EncodedRows, pack_stored, require_fitting, store_bins, store_rows
from services.training.worker.reload_check import choose_shortest
from tailor.chat import Encoded
from tailor.errors import InvalidArgument
from tests.unit.training.fakes import read_encoded
from tests.unit.training.test_rows import WordTokenizer

TOKENIZER = WordTokenizer()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    draw = random.Random(3)
    records = []
    for _ in range(300):
        turns = [(role, "word " * draw.randrange(1, 40)) for role in ("user", "assistant") * draw.choice([1, 1, 2])]
        messages = [{"role": role, "content": content.strip()} for role, content in turns]
        records.append({"row_id": f"row_{draw.getrandbits(64):016x}", "messages": messages})
    files = [tmp_path / f"{number}.parquet" for number in range(2)]
    for file, part in zip(files, (records[:120], records[120:]), strict=True):
        parquet.write_table(Table.from_pylist(part), file)
    return files


def best_fit(rows: Sequence[Encoded], capacity: int, seed: int) -> list[list[Encoded]]:
    """Best fit decreasing as it is defined, in time that grows with the square of the rows."""
    shuffled = sorted(rows, key=lambda row: row.row_id)
    random.Random(seed).shuffle(shuffled)
    bins: list[list[Encoded]] = []
    room: list[int] = []
    for row in sorted(shuffled, key=lambda row: -len(row.tokens)):
        fitting = [index for index, free in enumerate(room) if free >= len(row.tokens)]
        if not fitting:
            bins.append([])
            room.append(capacity)
            fitting = [len(bins) - 1]
        target = min(fitting, key=lambda index: room[index])
        bins[target].append(row)
        room[target] -= len(row.tokens)
    return bins


def test_rows_are_those_in_memory(paths: list[Path], tmp_path: Path) -> None:
    expected, stored = read_encoded(paths, TOKENIZER), store_rows(paths, TOKENIZER, tmp_path / "output")
    assert list(stored) == expected and any(row.earlier for row in expected)
    assert stored[-1] == expected[-1] and list(stored[5:9]) == expected[5:9]
    assert isinstance(stored.tokens, numpy.memmap)
    assert list(require_fitting(stored, 30)) == keep_fitting(expected, 30)
    assert choose_shortest(require_fitting(stored, 30)) == choose_shortest(keep_fitting(expected, 30))
    learned = [row for row in expected if len(row.tokens) > row.prompt_length]
    assert sorted(choose_stored(stored), key=lambda row: row.row_id) == sorted(learned, key=lambda row: row.row_id)
    with pytest.raises(InvalidArgument, match="max_length"):
        require_fitting(stored, 1)


@pytest.mark.parametrize("capacity", [20, 64, 300])
def test_bins_and_columns_are_those_in_memory(paths: list[Path], tmp_path: Path, capacity: int) -> None:
    rows, stored = read_encoded(paths, TOKENIZER), store_rows(paths, TOKENIZER, tmp_path)
    expected = best_fit(rows, capacity, seed=5)
    bins = pack_stored(stored, capacity, seed=5)
    assert pack(rows, capacity, seed=5) == expected == [list(packed) for packed in bins]
    dataset = store_bins([*bins, *fill_bins(bins, 7)], tmp_path / "bins")
    columns = to_columns(pad_bins(expected, 7))
    assert len(dataset) % 7 == 0 and dataset.cache_files
    assert {name: [row[name] for row in dataset] for name in columns} == columns


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    stored: EncodedRows = store_rows([], TOKENIZER, tmp_path)
    assert list(stored) == [] and choose_stored(stored) == []
