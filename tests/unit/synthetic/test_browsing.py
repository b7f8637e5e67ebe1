"""Pages of a dataset's rows: filters, limits of one call, and page tokens."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from services.synthetic import wire
from services.synthetic.browsing import DatasetQuery, RowBrowser
from services.synthetic.parquet import MESSAGES
from services.synthetic.ports import DatasetFinder
from services.synthetic.views import RowFilter, RowPosition, StoredDataset, StoredRow
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.datasets import DatasetFile, DatasetManifest, SplitFiles
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind

SCHEMA = pyarrow.schema(
    [
        *((name, pyarrow.string()) for name in ("row_id", "task", "made_by", "rejected")),
        ("document_ids", pyarrow.list_(pyarrow.string())),
        ("messages", MESSAGES),
    ]
)


def row(number: int, task: str = "section", text: str = "Text.") -> StoredRow:
    document_id = f"doc_{number // 2}"
    return StoredRow(f"row_{number}", task, (document_id,), (("user", "Write."), ("assistant", f"{text} {number}")))


class CountingStore(MemoryStore):
    """Remembers the keys of the files that were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def get_file(self, ref: Ref, path: Path) -> None:
        self.opened.append(ref.key)
        super().get_file(ref, path)


def put_rows(store: MemoryStore, key: str, groups: Sequence[Sequence[StoredRow]]) -> DatasetFile:
    """Store a file with these row groups."""
    names = ("row_id", "task", "document_ids", "made_by", "rejected")
    buffer = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(buffer, SCHEMA) as writer:
        for group in groups:
            rows = [
                {name: getattr(item, name) for name in names}
                | {"messages": [{"role": role, "content": content} for role, content in item.messages]}
                for item in group
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, SCHEMA))
    return DatasetFile(store.put("datasets", key, buffer.getvalue()), sum(map(len, groups)))


class OneDataset(DatasetFinder):
    def __init__(self, dataset: StoredDataset, files: dict[str, frozenset[str]]) -> None:
        self.dataset = dataset
        self.files = files

    def newest(self, specialist: str, kind: DatasetKind) -> StoredDataset | None:
        return self.dataset if (specialist, kind) == (self.dataset.specialist, self.dataset.kind) else None

    def find(self, digest: str) -> list[StoredDataset]:
        return [self.dataset] if digest == self.dataset.digest else []

    def files_of(self, dataset: StoredDataset, document_id: str) -> frozenset[str]:
        return self.files.get(document_id, frozenset())


def browser_of(files: dict[str, Sequence[Sequence[StoredRow]]]) -> RowBrowser:
    """A dataset whose files `train...` and `held_out...` are the given ones."""

    store = CountingStore()

    def entry(prefix: str) -> SplitFiles:
        entries = [put_rows(store, key, groups) for key, groups in files.items() if key.startswith(prefix)]
        return SplitFiles(sum(file.rows for file in entries), 0, tuple(entries))

    splits = {"train": entry("train"), "held_out": entry("held_out")}
    manifest = DatasetManifest(DatasetKind.SFT, "reports", splits)
    ref = store.put("datasets", "d/manifest.json", json.dumps(manifest.as_json()).encode())
    dataset = StoredDataset("d" * 64, "reports", DatasetKind.SFT, ref)
    by_document: dict[str, frozenset[str]] = {}
    for key, groups in files.items():
        for document_id in (document_id for group in groups for item in group for document_id in item.document_ids):
            by_document[document_id] = by_document.get(document_id, frozenset()) | {key}
    return RowBrowser(OneDataset(dataset, by_document), store, clock=lambda: 0.0)


FILES: dict[str, Sequence[Sequence[StoredRow]]] = {
    "train-1": [[row(0), row(1)], [row(2, "answer"), row(3)]],
    "train-2": [[row(4), row(5, text="The KILN of Straße")]],
    "held_out-1": [[row(6), row(7)]],
}


def read_all(browser: RowBrowser, wanted: RowFilter, size: int) -> list[list[str]]:
    """The ids of the rows of every page."""
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)
    pages, position = [], RowPosition()
    while True:
        page = browser.read(dataset, wanted, position, size)
        pages.append([f"{split}:{item.row_id}" for split, item in page.rows])
        if page.next_position is None:
            return pages
        position = page.next_position


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_pages_have_every_row_once_in_order_train_first(size: int) -> None:
    pages = read_all(browser_of(FILES), RowFilter(), size)
    expected = [f"train:row_{number}" for number in range(6)] + ["held_out:row_6", "held_out:row_7"]
    assert [item for page in pages for item in page] == expected
    assert all(len(page) <= size for page in pages)


def test_rows_of_a_document_are_found_without_opening_the_files_of_others() -> None:
    files: dict[str, Sequence[Sequence[StoredRow]]] = {
        f"train-{number}": [[row(2 * number), row(2 * number + 1)]] for number in range(400)
    }
    browser = browser_of(files)
    assert read_all(browser, RowFilter(document_id="doc_333"), 20) == [["train:row_666", "train:row_667"]]
    assert isinstance(browser.store, CountingStore) and browser.store.opened == ["train-333"]
    assert read_all(browser, RowFilter(document_id="doc_unknown"), 20) == [[]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RowFilter(split="held_out"), ["held_out:row_6", "held_out:row_7"]),
        (RowFilter(task="answer"), ["train:row_2"]),
        (RowFilter(document_id="doc_2"), ["train:row_4", "train:row_5"]),
        (RowFilter(text="kiln of STRASSE"), ["train:row_5"]),
        (RowFilter(text="k.ln"), []),
        (RowFilter(task="answer", document_id="doc_2"), []),
    ],
)
def test_filters_by_split_task_document_and_text(wanted: RowFilter, expected: list[str]) -> None:
    assert [item for page in read_all(browser_of(FILES), wanted, 100) for item in page] == expected


def test_the_worse_answer_is_searched_too() -> None:
    pair = replace(row(0), rejected="A poor answer.")
    assert read_all(browser_of({"train-1": [[pair]]}), RowFilter(text="poor"), 5) == [["train:row_0"]]


def test_one_call_reads_a_limited_number_of_rows_and_says_how_many() -> None:
    browser = replace(browser_of(FILES), max_scanned_rows=2)
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)
    page = browser.read(dataset, RowFilter(text="kiln"), RowPosition(), 100)
    assert (page.rows, page.scanned) == ((), 2)
    assert page.next_position is not None
    found = [item for page in read_all(browser, RowFilter(text="kiln"), 100) for item in page]
    assert found == ["train:row_5"]


def test_a_slow_store_ends_the_call_after_one_row_group() -> None:
    seconds = iter(range(0, 1000, 2))
    browser = replace(browser_of(FILES), clock=lambda: float(next(seconds)))
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)
    assert 0 < browser.read(dataset, RowFilter(), RowPosition(), 100).scanned < 8


def test_counts_the_rows_of_a_page_that_ends_within_a_group() -> None:
    browser = browser_of(FILES)
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)
    assert browser.read(dataset, RowFilter(), RowPosition(), 3).scanned == 3


def test_rows_of_erased_documents_are_never_shown() -> None:
    browser = replace(browser_of(FILES), erased={"doc_0", "doc_3"})
    assert read_all(browser, RowFilter(), 100) == [[f"train:row_{number}" for number in range(2, 6)]]


def test_an_unknown_dataset_and_one_without_access_look_the_same() -> None:
    browser = browser_of(FILES)
    for query in (DatasetQuery("other"), DatasetQuery("", "f" * 64), DatasetQuery("other", "d" * 64)):
        with pytest.raises(NotFound):
            browser.find(query, lambda name: True)
    with pytest.raises(NotFound):
        browser.find(DatasetQuery("", "d" * 64), lambda name: name == "other")


def test_a_dataset_that_an_erasure_deleted_is_not_found() -> None:
    browser = browser_of(FILES)
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)
    assert isinstance(browser.store, MemoryStore)
    browser.store.objects.clear()
    with pytest.raises(NotFound, match="erased"):
        browser.read(dataset, RowFilter(), RowPosition(), 1)


def test_a_token_leads_to_the_same_dataset_and_only_with_the_same_filters() -> None:
    dataset = StoredDataset("d" * 64, "reports", DatasetKind.SFT, Ref("s3://datasets/x", "0" * 64, 1))
    wanted, position = RowFilter(task="answer"), RowPosition(1, 2, 3, 4)
    token = wire.from_position(dataset, wanted, position)
    query = DatasetQuery("reports")
    assert wire.to_position(token, query, wanted) == (DatasetQuery("reports", "d" * 64), position)
    assert wire.to_position("", query, wanted) == (query, RowPosition())
    refused = (
        (token, query, RowFilter()),
        (token, DatasetQuery("other"), wanted),
        (token, DatasetQuery("", "e" * 64), wanted),
        ("no-token", query, wanted),
        ("WzFd", query, wanted),
        (wire.from_position(dataset, wanted, RowPosition(row=-1)), query, wanted),
    )
    for case in refused:
        with pytest.raises(InvalidArgument) as raised:
            wire.to_position(*case)
        assert raised.value.reason == Reason.INVALID_PAGE_TOKEN


def test_a_long_text_and_a_request_that_names_nothing_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        wire.to_filter(synthetic_pb2.ListRowsRequest(text="x" * 201))
    with pytest.raises(InvalidArgument):
        wire.to_query(synthetic_pb2.ListRowsRequest())
