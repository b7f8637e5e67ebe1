"""Imports over PostgreSQL, Parquet and gRPC."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine

from services.synthetic.adapters import imports as imports_adapter
from services.synthetic.adapters.barrier import RowAnonymizer
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.bootstrap import MIGRATIONS
from services.synthetic.domain import CleanTexts
from services.synthetic.import_rpc import MAX_CHUNK_ROWS, ImportServicer
from services.synthetic.imports.domain import ImportSpec, Messages, make_row
from services.synthetic.imports.erasures import ImportEraser
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.handlers import ImportCommands
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.synthetic.v1 import imports_pb2
from tailor.errors import Aborted, InvalidArgument, NotFound, PermissionDenied, Reason, Unavailable
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.memory import MemoryStore
from tailor.values import Labels
from tests.conftest import migrated

pytestmark = pytest.mark.integration

CONTEXT: Any = None


def chat(number: int) -> Messages:
    return (("user", f"Question {number}?"), ("assistant", f"Answer {number} by Ada."))


class World:
    """A servicer whose barrier replaces Ada, and fails from call `fails_at` on."""

    def __init__(self, engine: Engine) -> None:
        self.store, self.imports = MemoryStore(), SqlImports(engine)
        # Small enough for several buckets.
        self.files = ImportFiles(self.store, bucket_bytes=2_000)
        self.calls, self.fails_at = 0, 10**6
        self.erased: set[str] = set()
        self.ids: dict[str, str] = {}
        self.servicer = ImportServicer(ImportCommands(self.imports, self.files, self.anonymize, self.erased))
        self.eraser = ImportEraser(self.imports, self.files, self.erased)

    def anonymize(self, row_id: str, texts: Sequence[str], labels: Labels) -> CleanTexts:
        self.calls += 1
        if self.calls > self.fails_at:
            raise Unavailable(Reason.UNAVAILABLE, "anonymization does not answer.")
        self.ids[texts[-1]] = row_id
        clean = tuple(text.replace("Ada", "Eve") for text in texts)
        return CleanTexts(clean, sum(text.count("Ada") for text in texts))

    def run(self, *chunks: Sequence[Messages], **header: Any) -> imports_pb2.ImportDatasetResponse:
        return self.servicer.ImportDataset(requests(*chunks, **header), CONTEXT)

    def keys(self) -> list[str]:
        return sorted(key for _, key in self.store.objects)


def requests(*chunks: Sequence[Messages], **header: Any) -> Iterator[imports_pb2.ImportDatasetRequest]:
    known: dict[str, Any] = {"name": "chat", "licence": "CC-BY-4.0", "share_percent": 50, "request_id": "imp_1"}
    yield imports_pb2.ImportDatasetRequest(header=imports_pb2.ImportHeader(**(known | header)))
    for chunk in chunks:
        rows = [
            imports_pb2.ImportRow(
                messages=[imports_pb2.ImportMessage(role=role, content=content) for role, content in messages]
            )
            for messages in chunk
        ]
        yield imports_pb2.ImportDatasetRequest(chunk=imports_pb2.ImportChunk(rows=rows))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    set_caller(Caller("key", "ada", "ROLE_ENGINEER"))
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_imports_once_sorted_by_id_in_one_file(world: World) -> None:
    chunks = [[chat(number) for number in range(start, start + 40)] for start in range(0, 120, 40)]
    answer = world.run(*chunks, source="chats.jsonl", specialists=["reports"])
    item = getattr(answer, "import")
    assert (answer.created, item.rows, item.licence, item.share_percent) == (True, 120, "CC-BY-4.0", 50)
    assert world.keys() == [f"imports/chat/{item.sha256}.parquet"]
    stored = world.imports.find("chat")
    assert stored is not None and stored.file is not None
    rows = list(world.files.read(stored.file))
    assert [row.row_id for row in rows] == sorted(row.row_id for row in rows)
    assert {row.completion for row in rows} == {f"Answer {number} by Eve." for number in range(120)}
    assert b"Ada" not in b"".join(world.store.objects.values())
    again = world.run(*chunks, source="chats.jsonl", specialists=["reports"])
    assert (again.created, world.calls) == (False, 120)


def test_goes_on_after_a_failure_without_repeating_what_is_stored(world: World) -> None:
    chunks = [[chat(number) for number in range(start, start + 10)] for start in range(0, 30, 10)]
    world.fails_at = 15
    with pytest.raises(Unavailable):
        world.run(*chunks)
    (item,) = world.servicer.ListImports(imports_pb2.ListImportsRequest(), CONTEXT).imports
    assert (item.rows, item.sha256) == (10, "")
    world.calls, world.fails_at = 0, 10**6
    answer = world.run(*chunks)
    assert (answer.created, getattr(answer, "import").rows, world.calls) == (True, 30, 20)


def test_equal_rows_give_an_equal_file(world: World) -> None:
    # Rows with surrogates have ids of their own, by which they can be erased.
    rows: list[Messages] = [(("user", f"{number}?"), ("assistant", f"{number}.")) for number in range(30)]
    first = getattr(world.run(rows), "import").sha256
    world.servicer.ForgetImport(imports_pb2.ForgetImportRequest(name="chat"), CONTEXT)
    assert world.keys() == []
    assert getattr(world.run(rows[::-1], request_id="imp_2"), "import").sha256 == first


def test_counts_rejected_rows_over_all_chunks(world: World) -> None:
    item = getattr(world.run([chat(1), ()], [chat(1), (("user", "A?"),)]), "import")
    assert (item.rows, dict(item.rejected)) == (1, {"duplicate": 1, "empty": 1, "roles": 1})


def test_only_one_call_may_add_a_chunk(world: World) -> None:
    item = world.imports.begin(ImportSpec("chat", "MIT", 1), "imp_1")
    row = make_row("chat", chat(1), "txt_1")
    assert world.imports.add_part(item, [row], {"empty": 1}) is not None
    assert world.imports.add_part(item, [row], {}) is None
    assert list(world.imports.texts("chat")) == [("txt_1", 0)]


def test_erases_rows_of_a_finished_import_and_of_one_that_runs(world: World) -> None:
    world.run([chat(number) for number in range(60)])
    first, second = (world.ids[f"Answer {number} by Ada."] for number in (7, 31))
    world.erased |= {first, second}
    assert [world.eraser.forget(key) for key in (first, second)] == [2, 0]
    stored = world.imports.find("chat")
    assert stored is not None and stored.file is not None and (stored.rows, stored.rejected) == (58, {"erased": 2})
    assert world.keys() == [stored.file.key]
    answers = {row.completion for row in world.files.read(stored.file)}
    assert len(answers) == 58 and not {"Answer 7 by Eve.", "Answer 31 by Eve."} & answers
    world.fails_at = world.calls + 15
    with pytest.raises(Unavailable):
        world.run([chat(number) for number in range(10)], [chat(number) for number in range(10, 20)], name="half")
    third = world.ids["Answer 3 by Ada."]
    world.erased.add(third)
    assert world.eraser.forget(third) == 1
    world.fails_at = 10**6
    again = world.run([chat(number) for number in range(10)], [chat(number) for number in range(10, 20)], name="half")
    item = getattr(again, "import")
    assert (item.rows, dict(item.rejected)) == (19, {"erased": 1})
    assert list(world.imports.texts("chat")) and world.eraser.forget("txt_unknown") == 0
    world.servicer.ForgetImport(imports_pb2.ForgetImportRequest(name="chat"), CONTEXT)
    assert list(world.imports.texts("chat")) == []


def test_only_one_call_changes_an_import_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports_adapter, "LOCK_ATTEMPTS", 2)
    with world.imports.changing("chat"), pytest.raises(Aborted), world.imports.changing("chat"):
        pass
    with world.imports.changing("chat"), world.imports.changing("other"):
        pass


def test_a_limited_key_sees_and_forgets_only_its_own(world: World) -> None:
    world.run([chat(1)], specialists=["reports"])
    set_caller(Caller("key", "bob", "ROLE_ENGINEER", frozenset({"letters"})))
    assert list(world.servicer.ListImports(imports_pb2.ListImportsRequest(), CONTEXT).imports) == []
    with pytest.raises(NotFound):
        world.servicer.ForgetImport(imports_pb2.ForgetImportRequest(name="chat"), CONTEXT)
    with pytest.raises(PermissionDenied):
        world.run([chat(2)], name="other")
    with pytest.raises(NotFound):
        world.run([chat(2)], name="other", specialists=["reports"])
    assert getattr(world.run([chat(2)], name="other", specialists=["letters"]), "import").rows == 1


@pytest.mark.parametrize("chunk", [[()] * (MAX_CHUNK_ROWS + 1), [(("user", "x" * 9_000_000),)]])
def test_refuses_a_chunk_over_the_limits(world: World, chunk: list[Messages]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        world.run(chunk)
    assert raised.value.reason == Reason.TOO_LARGE


def test_refuses_a_stream_without_a_header_or_with_two(world: World) -> None:
    header, chunk = requests([chat(1)])
    for stream, reason in (([chunk], Reason.NO_HEADER), ([header, header], Reason.SECOND_HEADER)):
        with pytest.raises(InvalidArgument) as raised:
            world.servicer.ImportDataset(iter(stream), CONTEXT)
        assert raised.value.reason == reason
    with pytest.raises(InvalidArgument):
        world.run([chat(1)], request_id="")


class Barrier(anonymization_pb2_grpc.AnonymizationServiceServicer):
    def AnonymizeRow(self, request: Any, context: grpc.ServicerContext) -> anonymization_pb2.AnonymizeRowResponse:
        texts = [text.replace("Ada", f"Eve of {request.labels.source}") for text in request.texts]
        return anonymization_pb2.AnonymizeRowResponse(texts=texts, surrogates=len(request.row_id))


@contextmanager
def barrier() -> Iterator[grpc.Channel]:
    server = grpc.server(ThreadPoolExecutor(2))
    anonymization_pb2_grpc.add_AnonymizationServiceServicer_to_server(Barrier(), server)  # type: ignore[abstract]  # only what the test calls
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


def test_the_barrier_gets_a_rows_texts_together_with_its_id_and_labels() -> None:
    with barrier() as channel:
        clean = RowAnonymizer(channel)("txt_1", ["Ada?", "Yes, Ada."], Labels("wiki"))
    assert clean == CleanTexts(("Eve of wiki?", "Yes, Eve of wiki."), 5)
