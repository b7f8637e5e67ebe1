"""Valid and damaged files of rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from services.training.methods import row_files
from services.training.methods.row_files import BATCH_ROWS, CHATS, PAIRS, RowEncoder
from tailor.errors import InvalidArgument, Reason

USER, ASSISTANT = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer \u202e \U0001f3e6"}
ROW = {"row_id": "r1", "messages": [USER, ASSISTANT]}
PAIR = {"row_id": "r1", "messages": [USER], "chosen": "one", "rejected": "other"}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def read(columns: Sequence[str], *paths: Path) -> list[dict[str, Any]]:
    return list(row_files.read(paths, columns))


def encode(columns: Sequence[str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(RowEncoder(columns, lambda row: row).encode_all(rows))


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read(CHATS, written(tmp_path / "rows", {**ROW, "task": "section"})) == [ROW]
    assert read(CHATS, written(tmp_path / "with", {**ROW, "document_ids": ["doc_1"]}))[0]["document_ids"] == ["doc_1"]
    assert read(PAIRS, written(tmp_path / "pairs", PAIR)) == [PAIR]


def test_rows_of_several_files_follow_each_other_and_are_streamed(tmp_path: Path) -> None:
    first = written(tmp_path / "first", *({**ROW, "row_id": f"a{number}"} for number in range(BATCH_ROWS + 1)))
    second, damaged = written(tmp_path / "second", {**ROW, "row_id": "b0"}), tmp_path / "damaged"
    damaged.write_bytes(b"PAR1")
    stream = row_files.read([first, second, damaged], CHATS)
    ids = [next(stream)["row_id"] for _ in range(BATCH_ROWS + 2)]
    assert ids == [*(f"a{number}" for number in range(BATCH_ROWS + 1)), "b0"]
    with pytest.raises(InvalidArgument, match="INVALID_DATASET"):
        next(stream)


def test_rows_are_counted_without_reading_them(tmp_path: Path) -> None:
    assert row_files.count_rows([written(tmp_path / "one", ROW, ROW), written(tmp_path / "two", ROW)], CHATS) == 3
    assert row_files.count_rows([], CHATS) == 0


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "row_id": None},
        {**ROW, "row_id": 7},
        {**ROW, "messages": None},
        {**ROW, "messages": "ask"},
        {**ROW, "messages": [USER, {"role": "assistant", "content": None}]},
        {**ROW, "messages": [{"role": "user", "text": "ask"}]},
    ],
)
def test_row_without_text_is_rejected(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        encode(CHATS, read(CHATS, written(tmp_path / "rows", row)))
    assert refused.value.reason == "INVALID_ROW"


def test_pair_without_an_answer_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        encode(PAIRS, read(PAIRS, written(tmp_path / "rows", {**PAIR, "rejected": None})))
    assert refused.value.reason == "INVALID_ROW"


def test_one_bad_row_never_stops_a_dataset_and_is_counted() -> None:
    encoder = RowEncoder(CHATS, lambda row: row["row_id"])
    assert list(encoder.encode_all([ROW, {**ROW, "messages": None}, ROW])) == [ROW["row_id"]] * 2
    assert (encoder.rows, encoder.skipped) == (3, 1)


@pytest.mark.parametrize(("bad", "stops"), [(3, False), (4, True)])
def test_bad_rows_are_skipped_up_to_a_hundredth(bad: int, stops: bool) -> None:
    rows: list[dict[str, Any]] = [
        {**ROW, "row_id": f"r{number}", "document_ids": [f"doc_{number}"]} for number in range(300)
    ]
    for row in rows[10 : 10 + bad]:
        row["messages"] = None
    encoder = RowEncoder(CHATS, lambda row: row["row_id"])
    if not stops:
        assert len(list(encoder.encode_all(rows))) == 297
        return
    with pytest.raises(InvalidArgument, match="4 of 300 rows cannot be learned") as refused:
        list(encoder.encode_all(rows))
    assert "r10 of doc_10; r11 of doc_11; r12 of doc_12. Row r10 lacks text." in refused.value.message
    assert "`tailor build SPECIALIST`" in refused.value.message


def test_chats_that_a_template_rejects_are_left_out_if_others_are_left() -> None:
    def reject(row: dict[str, Any]) -> str:
        if row["row_id"] != "r1":
            raise InvalidArgument(Reason.INVALID_ROW, "The base's chat template rejects it.")
        return str(row["row_id"])

    rejected = [{**ROW, "row_id": f"system-{number}"} for number in range(5)]
    encoder = RowEncoder(CHATS, reject)
    assert (list(encoder.encode_all([ROW, *rejected])), encoder.skipped) == (["r1"], 5)
    with pytest.raises(InvalidArgument, match="5 of 5 rows cannot be learned"):
        list(RowEncoder(CHATS, reject).encode_all(rejected))


def test_other_errors_stop_at_the_first_row() -> None:
    def refuse(row: dict[str, Any]) -> None:
        raise InvalidArgument(Reason.NO_ROWS, "It has no rows.")

    with pytest.raises(InvalidArgument, match="NO_ROWS"):
        list(RowEncoder(CHATS, refuse).encode_all([ROW, ROW]))


def test_chats_are_rejected_as_pairs(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no chosen, rejected") as refused:
        read(PAIRS, written(tmp_path / "rows", ROW))
    assert refused.value.reason == "WRONG_DATASET_KIND"


def test_damaged_file_is_an_invalid_dataset(tmp_path: Path) -> None:
    whole = written(tmp_path / "rows", *({**ROW, "row_id": f"r{number}"} for number in range(99))).read_bytes()
    for number, content in enumerate(
        [b"", b"PAR1 text PAR1", whole[: len(whole) // 2], whole[:20] + b"\xff" * 40 + whole[60:]]
    ):
        path = tmp_path / f"damaged-{number}"
        path.write_bytes(content)
        with pytest.raises(InvalidArgument) as refused:
            read(CHATS, path)
        assert refused.value.reason == "INVALID_DATASET"


def test_undecodable_text_is_an_invalid_dataset(tmp_path: Path) -> None:
    path, bytes_ = tmp_path / "rows", pa.array([b"\xff\xfe"]).view(pa.string())
    table = pa.Table.from_pylist([ROW])
    parquet.write_table(table.set_column(0, "row_id", bytes_), path)
    with pytest.raises(InvalidArgument) as refused:
        read(CHATS, path)
    assert refused.value.reason == "INVALID_DATASET"


def test_missing_file_is_not_an_invalid_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(CHATS, tmp_path / "missing")
