"""Imports over PostgreSQL, Parquet and gRPC."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from services.synthetic.adapters import imports as imports_adapter
from services.synthetic.adapters.clients import anonymize_row
from services.synthetic.adapters.imports import SqlImports
from services.synthetic.domain import CleanTexts, Row, Specialist
from services.synthetic.import_domain import ImportSpec, Messages, make_row, row_text_id
from services.synthetic.import_rpc import MAX_CHUNK_ROWS, ImportServicer
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.handlers import ImportCommands
from services.synthetic.imports.rows import ImportedRows
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.synthetic.v1 import imports_pb2
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.memory import MemoryStore
from tailor.values import Labels, RowPolicy
from tests.synthetic import WordTokenizers
from tests.synthetic import World as SyntheticWorld

pytestmark = pytest.mark.integration

CONTEXT: Any = None


def chat(number: int) -> Messages:
    return (("user", f"Question {number}?"), ("assistant", f"Answer {number} by Ada."))


class World:
    """A servicer whose barrier replaces Ada, and fails from call `fails_at` on."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.store, self.imports = engine, MemoryStore(), SqlImports(engine)
        # Small enough for several buckets.
        self.files = ImportFiles(self.store, bucket_bytes=2_000)
        self.calls, self.fails_at = 0, 10**6
        self.erased: set[str] = set()
        self.ids: dict[str, str] = {}
        commands = ImportCommands(self.imports, self.files, self.anonymize, self.erased, max_rows=200)
        self.servicer = ImportServicer(commands)
        self.extra = ImportedRows(self.imports, self.files, WordTokenizers(), self.erased)
        self.commands = commands

    def anonymize(self, row_id: str, texts: Sequence[str], labels: Labels) -> CleanTexts:
        self.calls += 1
        if self.calls > self.fails_at:
            raise Unavailable(Reason.UNAVAILABLE, "anonymization does not answer.")
        if "forbidden" in texts[-1]:
            raise InvalidArgument(Reason.TEXT_TOO_LONG, "No.")
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
def world(engine: Engine) -> World:
    set_caller(Caller("key", "ada", "ROLE_ENGINEER"))
    return World(engine)


def test_imports_once_sorted_by_id_in_one_file(world: World) -> None:
    chunks = [[chat(number) for number in range(start, start + 40)] for start in range(0, 120, 40)]
    answer = world.run(*chunks, source="chats.jsonl", specialists=["reports"])
    item = getattr(answer, "import")
    assert (answer.created, item.rows, item.licence, item.share_percent) == (True, 120, "CC-BY-4.0", 50)
    assert world.keys() == [f"imports/chat/{item.sha256}.parquet"]
    stored = world.imports.find(name="chat")
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


def test_counts_rejected_rows_by_reason_over_all_chunks(world: World) -> None:
    user, answer = ("user", "A?"), ("assistant", "B.")
    more: list[Messages] = [(user, ("assistant", " ")), (answer, user), (user, answer, user)]
    more += [(user, ("assistant", "x" * 100_001)), (user, ("assistant", "forbidden"))]
    item = getattr(world.run([chat(1), ()], [chat(1), (user,), *more]), "import")
    rejected = {"barrier": 1, "duplicate": 1, "empty": 2, "roles": 3, "too_long": 1}
    assert (item.rows, dict(item.rejected)) == (1, rejected)


def test_an_import_without_a_row_or_with_too_many_is_refused(world: World) -> None:
    with pytest.raises(FailedPrecondition, match="empty 1") as raised:
        world.run([()])
    assert raised.value.reason == Reason.NO_ROWS and world.keys() == [] and world.imports.all() == []
    with pytest.raises(ResourceExhausted):
        world.run([chat(number) for number in range(150)], [chat(number) for number in range(150, 201)])


def test_the_same_bytes_are_the_same_import_and_others_are_refused(world: World) -> None:
    world.run([chat(1)])
    for header, reason in (
        ({"request_id": "imp_2"}, Reason.ALREADY_EXISTS),
        ({"licence": "MIT"}, Reason.REQUEST_ID_REUSED),
    ):
        with pytest.raises((AlreadyExists, InvalidArgument)) as raised:
            world.run([chat(1)], **header)
        assert raised.value.reason == reason and world.calls == 1


def replaying(*names: str, name: str = "reports") -> Specialist:
    return Specialist(name, 1, "base", "lora", rows=RowPolicy(replay=names, replay_percent=10))


def test_a_specialist_gets_the_rows_of_the_finished_imports_that_it_names_and_may_use(world: World) -> None:
    before = world.extra.fingerprint(replaying("chat", "more"))
    world.run([chat(number) for number in range(20)], share_percent=100)
    nobody: Messages = (("system", "Be kind."), ("user", "Who are they?"), ("assistant", "Nobody."))
    world.run([nobody, *(chat(number) for number in range(20, 39))], name="more", share_percent=100)
    world.run([chat(number) for number in range(100, 180)], name="few", share_percent=30)
    world.run([chat(1)], name="letters", share_percent=100, specialists=["letters"])
    world.imports.begin(ImportSpec("half", "MIT", 100), "imp_2")

    def rows(*names: str, name: str = "reports") -> list[Row]:
        return list(world.extra.rows(replaying(*names, name=name)))

    both = rows("more", "chat", "unknown", "half")
    assert len(both) == 40 and [row.row_id for row in both] == sorted(row.row_id for row in both)
    assert {row.made_by for row in rows("more")} == {"import:more"} and rows() == rows("letters") == rows("half") == []
    assert len(rows("letters", name="letters")) == 1 and 10 < len(rows("few")) < 40
    # Tokens are counted with those of the template. A row without a personal value has no id to erase.
    (plain,) = [row for row in both if not row.document_ids]
    assert (plain.system_prompt, plain.tokens) == ("Be kind.", 2 + 3 + 1 + 12)
    assert {len(row.document_ids) for row in both if row != plain} == {1}
    used = world.extra.fingerprint(replaying("chat", "more"))
    assert used != before
    world.servicer.ForgetImport(imports_pb2.ForgetImportRequest(name="few"), CONTEXT)
    assert world.extra.fingerprint(replaying("chat", "more")) == used
    # A row that another replica erased gives no rows, even before its file is written again.
    world.erased.add(world.ids["Answer 7 by Ada."])
    assert len(rows("chat")) == 19
    world.store.objects.clear()
    with pytest.raises(Aborted):
        rows("chat")


def test_an_import_whose_file_is_damaged_is_skipped_and_counted_and_stops_no_build(world: World) -> None:
    world.run([chat(number) for number in range(20)], share_percent=100)
    world.run([chat(number) for number in range(20, 50)], name="more", share_percent=100)
    damaged = world.imports.find(name="more")
    assert damaged is not None and damaged.file is not None
    world.store.objects["datasets", damaged.file.key] += b"x"
    builder = SyntheticWorld(world.engine, world.store, extra_rows=(world.extra,))
    builder.define(rows=replaying("chat", "more").rows)
    builder.fill()
    with capture_logs() as logs:
        dataset = builder.build()
    assert dataset.skipped["unreadable"].rows == 30
    named = {(line["name"], line["reason"]) for line in logs if line["event"] == "import left out"}
    assert named == {("more", "CORRUPT_OBJECT")}


def test_a_row_that_is_erased_during_its_import_is_not_stored_and_a_second_call_adds_nothing(world: World) -> None:
    def stream() -> Iterator[imports_pb2.ImportDatasetRequest]:
        header, *chunks = requests([chat(1), chat(2)], [chat(3), chat(4), chat(5)])
        yield header
        yield chunks[0]
        item = world.imports.find(name="chat")
        assert item is not None
        # Of a stored chunk, and of rows that have not been sent yet.
        first = world.ids["Answer 1 by Ada."]
        world.erased |= {first, row_text_id(item, 3)}
        assert world.commands.forget_row(first) == 1
        yield chunks[1]

    item = getattr(world.servicer.ImportDataset(stream(), CONTEXT), "import")
    assert (item.rows, dict(item.rejected)) == (3, {"erased": 2}) and "Answer 4 by Ada." not in world.ids

    def interrupted() -> Iterator[imports_pb2.ImportDatasetRequest]:
        header, *chunks = requests([chat(1)], [chat(2)], name="other")
        yield header
        yield chunks[0]
        item = world.imports.find(name="other")
        assert item is not None and world.imports.add_part(item, [], {}) is not None
        yield chunks[1]

    with pytest.raises(Aborted):
        world.servicer.ImportDataset(interrupted(), CONTEXT)


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
    assert [world.commands.forget_row(key) for key in (first, second)] == [2, 0]
    stored = world.imports.find(name="chat")
    assert stored is not None and stored.file is not None and (stored.rows, stored.rejected) == (58, {"erased": 2})
    assert world.keys() == [stored.file.key]
    answers = {row.completion for row in world.files.read(stored.file)}
    assert len(answers) == 58 and not {"Answer 7 by Eve.", "Answer 31 by Eve."} & answers
    world.fails_at = world.calls + 15
    with pytest.raises(Unavailable):
        world.run([chat(number) for number in range(10)], [chat(number) for number in range(10, 20)], name="half")
    third = world.ids["Answer 3 by Ada."]
    world.erased.add(third)
    assert world.commands.forget_row(third) == 1
    world.fails_at = 10**6
    again = world.run([chat(number) for number in range(10)], [chat(number) for number in range(10, 20)], name="half")
    item = getattr(again, "import")
    assert (item.rows, dict(item.rejected)) == (19, {"erased": 1})
    assert list(world.imports.texts("chat")) and world.commands.forget_row("txt_unknown") == 0
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
        stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)
        clean = anonymize_row(stub, "txt_1", ["Ada?", "Yes, Ada."], Labels("wiki"))
    assert clean == CleanTexts(("Eve of wiki?", "Yes, Eve of wiki."), 5)
