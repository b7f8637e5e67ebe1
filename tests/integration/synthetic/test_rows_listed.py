"""Rows of Parquet files and datasets of PostgreSQL, through the servicer."""

import io
import json
from dataclasses import replace
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from sqlalchemy import Engine

from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.browsing import RowBrowser
from services.synthetic.corpus import ALL_SEGMENTS, StoredFile
from services.synthetic.domain import Dataset
from services.synthetic.rpc import SyntheticServicer
from services.synthetic.views import DatasetQuery, RowFilter, RowPosition
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.datasets import DatasetFile, DatasetManifest, SplitFiles
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.memory import MemoryStore
from tailor.values import DatasetKind
from tests.synthetic import CONTEXT, make_app

pytestmark = pytest.mark.integration

MESSAGES = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
STRINGS = pyarrow.list_(pyarrow.string())
SPANS = pyarrow.list_(
    pyarrow.struct(
        [("kind", pyarrow.string()), *((name, pyarrow.int32()) for name in ("number", "level", "start", "end"))]
    )
)
PLACES = pyarrow.list_(pyarrow.struct([("start", pyarrow.int32()), ("end", pyarrow.int32())]))
# The columns that docs/synthetic/datasets.md names.
SFT = pyarrow.schema(
    {
        "row_id": pyarrow.string(),
        "task": pyarrow.string(),
        "document_ids": STRINGS,
        "messages": MESSAGES,
        "made_by": pyarrow.string(),
        "spans": SPANS,
        "language": pyarrow.string(),
        "tokens": pyarrow.int32(),
        "grounding": pyarrow.string(),
        "places": PLACES,
        "lineage": pyarrow.map_(pyarrow.string(), pyarrow.string()),
    }
)
PAIRS = pyarrow.schema(
    {
        "row_id": pyarrow.string(),
        "task": pyarrow.string(),
        "messages": MESSAGES,
        "chosen": pyarrow.string(),
        "rejected": pyarrow.string(),
        "document_ids": STRINGS,
        "judgement_ids": STRINGS,
        "made_by": pyarrow.string(),
    }
)


def sft(number: int) -> dict[str, Any]:
    return {
        "row_id": f"row_{number}",
        "task": "answer" if number % 2 else "section",
        "document_ids": [f"doc_{number}"],
        "messages": [
            {"role": "user", "content": f"Was ist Nummer {number}?"},
            {"role": "assistant", "content": f"Die Antwort ist {number}."},
        ],
        "made_by": "teacher:large" if number else "structure",
        "spans": [{"kind": "page", "number": 2, "level": 0, "start": 5, "end": 90}],
        "language": "de",
        "tokens": 21,
        "grounding": "yes",
        "places": [{"start": 10, "end": 40}],
        "lineage": [("synthesis", "syn_1")] if number else [],
    }


class World:
    """A servicer over real files and a real database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = MemoryStore()
        self.repository = make_app(engine, self.store).repository
        self.erased: set[str] = set()
        self.browser = RowBrowser(SqlDatasets(engine), self.store, self.erased)
        unused: Any = None
        self.servicer = SyntheticServicer(unused, self.browser, unused)

    def put(self, records: list[dict[str, Any]], schema: pyarrow.Schema, group_rows: int = 3) -> DatasetFile:
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(records, schema=schema), buffer, row_group_size=group_rows)
        data = buffer.getvalue()
        return DatasetFile(self.store.put("datasets", f"files/{hash(data)}.parquet", data), len(records))

    def add(self, specialist: str, kind: DatasetKind, train: list[DatasetFile], held_out: list[DatasetFile]) -> str:
        splits = {
            name: SplitFiles(sum(file.rows for file in files), 0, tuple(files))
            for name, files in (("train", train), ("held_out", held_out))
        }
        manifest = DatasetManifest(kind, specialist, splits)
        data = json.dumps(manifest.as_json()).encode()
        ref = self.store.put("datasets", f"{hash(data)}/manifest.json", data)
        dataset = Dataset(ref.sha256, specialist, "tiny", (), ref, 0, 0, 0, 0, kind=kind)
        files = [StoredFile(file, ALL_SEGMENTS) for file in {*train, *held_out}]
        self.repository.finish(dataset, files, position=0, fingerprint="")
        return ref.sha256

    def rows(self, **request: Any) -> synthetic_pb2.ListRowsResponse:
        return self.servicer.ListRows(synthetic_pb2.ListRowsRequest(**request), CONTEXT)


@pytest.fixture
def world(engine: Engine) -> World:
    set_caller(Caller("key", "ada", "ROLE_ENGINEER"))
    world = World(engine)
    train = [world.put([sft(number) for number in range(7)], SFT), world.put([sft(7)], SFT)]
    world.add("reports", DatasetKind.SFT, train, [world.put([sft(8)], SFT)])
    return world


def test_lists_the_rows_of_the_newest_dataset_page_by_page(world: World) -> None:
    token, ids = "", []
    for _ in range(5):
        page = world.rows(specialist="reports", page_size=2, page_token=token)
        ids += [row.row_id for row in page.rows]
        token = page.next_page_token
    assert ids == [f"row_{number}" for number in range(9)] and token == ""


def test_a_row_says_all_that_its_file_says(world: World) -> None:
    page = world.rows(specialist="reports", document_id="doc_8")
    (row,) = page.rows
    assert [(message.role, message.content) for message in row.messages] == [
        ("user", "Was ist Nummer 8?"),
        ("assistant", "Die Antwort ist 8."),
    ]
    assert (row.task, row.split, row.language, row.tokens) == ("section", synthetic_pb2.SPLIT_HELD_OUT, "de", 21)
    assert (row.grounding, row.made_by, dict(row.lineage)) == ("yes", "teacher:large", {"synthesis": "syn_1"})
    assert [(place.start, place.end) for place in row.places] == [(10, 40)]
    (span,) = row.spans
    assert (span.kind, span.number, span.start) == (common_pb2.SPAN_KIND_PAGE, 2, 5)
    assert (page.specialist, page.scanned_rows) == ("reports", 9)


def test_filters_by_task_and_text_over_all_files(world: World) -> None:
    assert [row.row_id for row in world.rows(specialist="reports", task="answer").rows] == [
        "row_1",
        "row_3",
        "row_5",
        "row_7",
    ]
    assert [row.row_id for row in world.rows(specialist="reports", text="ANTWORT IST 7").rows] == ["row_7"]


def test_one_call_reads_a_limited_number_of_rows_and_any_page_size_gives_all(world: World) -> None:
    browser = replace(world.browser, max_scanned_rows=2)
    dataset = browser.find(DatasetQuery("reports"), lambda name: True)

    def read(browser: RowBrowser, wanted: RowFilter, size: int) -> list[str]:
        ids, position = list[str](), RowPosition()
        while True:
            page = browser.read(dataset, wanted, position, size)
            ids += [row.row_id for _, row in page.rows]
            if page.next_position is None:
                return ids
            position = page.next_position

    first = browser.read(dataset, RowFilter(text="ANTWORT IST 7"), RowPosition(), 100)
    assert (first.rows, first.scanned) == ((), 3) and read(browser, RowFilter(text="antwort ist 7"), 9) == ["row_7"]
    # A text is literal.
    assert read(browser, RowFilter(text="ist ."), 9) == []
    assert read(browser, RowFilter(split="held_out"), 9) == ["row_8"]
    for size in (1, 2, 4, 100):
        assert read(world.browser, RowFilter(), size) == [f"row_{number}" for number in range(9)]
    assert world.browser.read(dataset, RowFilter(), RowPosition(), 2).scanned == 2
    seconds = iter(range(0, 1000, 2))
    slow = replace(world.browser, clock=lambda: float(next(seconds)))
    assert 0 < slow.read(dataset, RowFilter(), RowPosition(), 100).scanned < 9
    world.store.objects.clear()
    with pytest.raises(NotFound, match="erased"):
        browser.read(dataset, RowFilter(), RowPosition(), 1)


def test_rows_of_erased_documents_are_not_shown(world: World) -> None:
    world.erased.add("doc_3")
    assert "row_3" not in [row.row_id for row in world.rows(specialist="reports").rows]


def test_a_key_sees_only_datasets_of_its_specialists(world: World) -> None:
    digest = world.rows(specialist="reports").dataset_digest
    set_caller(Caller("key", "bob", "ROLE_ENGINEER", frozenset({"letters"})))
    for request in ({"specialist": "reports"}, {"dataset_digest": digest}):
        with pytest.raises(NotFound):
            world.rows(**request)


def test_specialists_with_equal_rows_share_a_digest(world: World) -> None:
    (dataset,) = world.browser.datasets.all(digest=world.rows(specialist="reports").dataset_digest)
    world.repository.finish(replace(dataset, specialist="letters"), (), position=0, fingerprint="")
    set_caller(Caller("key", "bob", "ROLE_ENGINEER", frozenset({"letters"})))
    assert world.rows(dataset_digest=dataset.digest, page_size=1).specialist == "letters"


def test_a_preference_row_has_the_better_answer_and_the_worse_one(world: World) -> None:
    pair = {
        "row_id": "row_p",
        "task": "ranking",
        "messages": [{"role": "user", "content": "Write."}],
        "chosen": "Good.",
        "rejected": "Bad.",
        "document_ids": [],
        "judgement_ids": ["jdg_1"],
        "made_by": "human",
    }
    world.add("reports", DatasetKind.PREFERENCE, [world.put([pair], PAIRS)], [])
    (row,) = world.rows(specialist="reports", kind=models_pb2.DATASET_KIND_PREFERENCE).rows
    assert (row.messages[-1].content, row.rejected, list(row.judgement_ids)) == ("Good.", "Bad.", ["jdg_1"])
    (found,) = world.rows(specialist="reports", kind=models_pb2.DATASET_KIND_PREFERENCE, text="bad").rows
    assert found == row and world.rows(specialist="reports").rows[0].task == "section"


def test_refuses_a_page_size_below_zero_and_a_file_that_is_not_parquet(world: World) -> None:
    with pytest.raises(InvalidArgument):
        world.rows(specialist="reports", page_size=-1)
    broken = DatasetFile(world.store.put("datasets", "files/broken", b"no parquet"), 1)
    digest = world.add("letters", DatasetKind.SFT, [broken], [])
    with pytest.raises(FailedPrecondition, match="not Parquet"):
        world.rows(dataset_digest=digest)
