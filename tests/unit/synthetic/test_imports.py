"""Importing rows over a database in memory: what is accepted, going on after an interruption, and the rows that specialists get."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from structlog.testing import capture_logs

from services.synthetic import handlers
from services.synthetic.corpus import UNREADABLE
from services.synthetic.domain import CleanTexts, Grounding, Row, Specialist
from services.synthetic.imports.domain import (
    DatasetImport,
    ImportSpec,
    Messages,
    RowRejection,
    add_counts,
    find_rejection,
    is_shared,
    make_row,
    row_text_id,
)
from services.synthetic.imports.erasures import ImportEraser
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.handlers import ImportCommands
from services.synthetic.imports.ports import Imports
from services.synthetic.imports.rows import ImportedRows
from services.synthetic.ports import TokenCounter, Tokenizers
from tailor.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from tailor.storage.buckets import DATASETS
from tailor.storage.memory import MemoryStore
from tailor.values import Labels, RowPolicy
from tests.unit.synthetic.fakes import make_app, put_document

SPEC = ImportSpec("chat", "CC-BY-4.0", 100, "chats.jsonl")


def chat(number: int) -> Messages:
    return (("user", f"Who is Ada {number}?"), ("assistant", f"Ada is number {number}."))


class MemoryImports(Imports):
    def __init__(self) -> None:
        self.items: dict[str, DatasetImport] = {}
        self.ids: dict[str, tuple[str, int]] = {}
        self.locked: set[str] = set()

    def find(self, name: str) -> DatasetImport | None:
        return self.items.get(name)

    def find_all(self) -> list[DatasetImport]:
        return [self.items[name] for name in sorted(self.items)]

    def begin(self, spec: ImportSpec, request_id: str) -> DatasetImport:
        return self.items.setdefault(spec.name, DatasetImport(spec, request_id))

    @contextmanager
    def changing(self, name: str) -> Iterator[None]:
        assert name not in self.locked
        self.locked.add(name)
        yield
        self.locked.remove(name)

    def add_part(self, item: DatasetImport, rows: Sequence[Row], rejected: Mapping[str, int]) -> DatasetImport | None:
        if self.items.get(item.spec.name) != item:
            return None
        self.ids |= {key: (item.spec.name, item.parts) for row in rows for key in row.document_ids}
        counts = add_counts(item.rejected, rejected)
        self.items[item.spec.name] = replace(item, parts=item.parts + 1, rows=item.rows + len(rows), rejected=counts)
        return self.items[item.spec.name]

    def finish(self, item: DatasetImport) -> DatasetImport:
        assert item.spec.name in self.locked
        self.items[item.spec.name] = item
        return item

    def find_text(self, text_id: str) -> str | None:
        return self.ids[text_id][0] if text_id in self.ids else None

    def texts(self, name: str) -> Iterator[tuple[str, int]]:
        yield from [(key, part) for key, (owner, part) in self.ids.items() if owner == name]

    def drop_texts(self, text_ids: Sequence[str]) -> None:
        for key in text_ids:
            self.ids.pop(key, None)

    def drop(self, name: str) -> None:
        self.items.pop(name, None)
        self.drop_texts([key for key, _ in self.texts(name)])


@dataclass
class Barrier:
    """Replaces Ada. Does not answer after `answers` calls."""

    answers: int = 10**6
    asked: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)

    def __call__(self, row_id: str, texts: Sequence[str], labels: Labels) -> CleanTexts:
        if self.answers <= 0:
            raise Unavailable(Reason.UNAVAILABLE, "anonymization does not answer.")
        self.answers -= 1
        if any("forbidden" in text for text in texts):
            raise InvalidArgument(Reason.TEXT_TOO_LONG, "No.")
        self.asked += texts
        self.texts[row_id] = " ".join(texts)
        return CleanTexts(tuple(text.replace("Ada", "Eve") for text in texts), sum(text.count("Ada") for text in texts))

    def find(self, text: str) -> list[str]:
        """The ids of the rows with a text, as ResolveSubject gives them."""
        return [row_id for row_id, whole in self.texts.items() if text in whole]


class World:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.imports, self.files, self.barrier = MemoryImports(), ImportFiles(self.store), Barrier()
        self.erased: set[str] = set()
        self.commands = ImportCommands(self.imports, self.files, self.barrier, self.erased, max_rows=100)
        self.eraser = ImportEraser(self.imports, self.files, self.erased)

    def run(self, *chunks: Sequence[Messages], spec: ImportSpec = SPEC, request_id: str = "one") -> DatasetImport:
        return self.commands.run(spec, request_id, iter(chunks)).item

    def texts(self, name: str = "chat") -> list[str]:
        item = self.imports.items[name]
        return sorted(row.prompt for row in self.files.read(item.file)) if item.file else []


def test_every_text_passes_the_barrier_and_only_the_result_is_stored() -> None:
    world = World()
    item = world.run([chat(1), chat(2)], [chat(3)])
    assert item.file is not None
    assert (item.rows, item.rejected, list(world.store.objects)) == (3, {}, [(DATASETS, item.file.key)])
    assert world.texts() == ["Who is Eve 1?", "Who is Eve 2?", "Who is Eve 3?"]
    assert sorted(world.barrier.asked) == sorted(text for number in (1, 2, 3) for _, text in chat(number))
    assert "Ada" not in repr(list(world.files.read(item.file)))


def test_counts_rejected_rows_by_reason() -> None:
    world = World()
    user, answer = ("user", "A?"), ("assistant", "B.")
    rows: list[Messages] = [
        chat(1),
        chat(1),
        (),
        (user, ("assistant", " ")),
        (answer, user),
        (user, answer, user),
        (user, ("assistant", "x" * 100_001)),
        (user, ("assistant", "forbidden")),
    ]
    item = world.run(rows)
    assert item.rows == 1
    assert item.rejected == {"barrier": 1, "duplicate": 1, "empty": 2, "roles": 2, "too_long": 1}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((("system", "Be kind."), ("user", "A?"), ("assistant", "B.")), None),
        ((("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")), None),
        ((("system", "Be kind."),), RowRejection.EMPTY),
        ((("user", "A?"), ("system", "Be kind."), ("assistant", "B.")), RowRejection.ROLES),
        ((("user", "A?"), ("tool", "B.")), RowRejection.ROLES),
    ],
)
def test_a_chat_has_user_and_assistant_in_turn(messages: Messages, expected: RowRejection | None) -> None:
    assert find_rejection(messages) is expected


def test_a_row_is_an_example_of_the_import() -> None:
    row = make_row("chat", (("system", "Be kind."), *chat(1)))
    assert (row.task, row.made_by, row.system_prompt, row.document_ids) == ("example", "import:chat", "Be kind.", ())
    assert (row.messages, row.grounding) == (chat(1), Grounding.PEOPLE)


def test_a_repeated_call_goes_on_after_the_last_stored_chunk() -> None:
    world = World()
    world.barrier.answers = 3
    chunks = ([chat(1), chat(2)], [chat(3), chat(4)], [chat(1), chat(5)])
    with pytest.raises(Unavailable):
        world.run(*chunks)
    assert world.imports.items["chat"].parts == 1
    world.barrier.answers, world.barrier.asked = 10**6, []
    item = world.run(*chunks)
    assert (item.rows, item.rejected) == (5, {"duplicate": 1})
    assert not any(text in world.barrier.asked for _, text in chat(2))
    assert world.texts() == [f"Who is Eve {number}?" for number in range(1, 6)]


def test_the_same_bytes_are_the_same_import_and_others_are_refused() -> None:
    world = World()
    assert world.commands.run(SPEC, "one", iter([[chat(1)]])).created is True
    asked = len(world.barrier.asked)
    assert world.commands.run(SPEC, "one", iter([[chat(1)]])).created is False
    assert len(world.barrier.asked) == asked
    with pytest.raises(AlreadyExists, match="forget-import chat"):
        world.run([chat(2)], request_id="two")
    with pytest.raises(InvalidArgument) as raised:
        world.run([chat(1)], spec=replace(SPEC, licence="MIT"))
    assert raised.value.reason == Reason.REQUEST_ID_REUSED


def test_an_import_without_a_row_leaves_nothing_behind() -> None:
    world = World()
    with pytest.raises(FailedPrecondition, match="empty 1") as raised:
        world.run([()])
    assert raised.value.reason == Reason.NO_ROWS
    assert (world.imports.items, world.store.objects) == ({}, {})


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(ResourceExhausted):
        World().run([chat(number) for number in range(60)], [chat(number) for number in range(60, 101)])


def test_two_calls_do_not_add_the_same_chunk_twice() -> None:
    world = World()

    def chunks() -> Iterator[Sequence[Messages]]:
        yield [chat(1)]
        item = world.imports.items["chat"]
        world.imports.add_part(item, [], {})
        yield [chat(2)]

    with pytest.raises(Aborted):
        world.commands.run(SPEC, "one", chunks())


def test_forgets_an_import_with_its_file() -> None:
    world = World()
    world.run([chat(1)])
    assert world.commands.forget("chat").rows == 1
    assert (world.imports.items, world.store.objects) == ({}, {})
    with pytest.raises(NotFound):
        world.commands.forget("chat")


@pytest.mark.parametrize(
    ("values", "field_name"),
    [
        ({"name": "Chat"}, "name"),
        ({"name": "../chat"}, "name"),
        ({"licence": ""}, "licence"),
        ({"licence": "see the web page"}, "licence"),
        ({"share_percent": 0}, "share_percent"),
        ({"share_percent": 101}, "share_percent"),
        ({"source": "x" * 201}, "source"),
    ],
)
def test_refuses_an_invalid_import_with_the_field(values: dict[str, str | int], field_name: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        replace(SPEC, **values)  # type: ignore[arg-type]  # several types in one dictionary
    assert set(raised.value.field_violations) == {field_name}


class Words(TokenCounter):
    digest, context_tokens = "words", 1000

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 5 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return True


class OneTokenizer(Tokenizers):
    def for_base(self, base: str) -> TokenCounter:
        return Words()


def replaying(*names: str, name: str = "reports") -> Specialist:
    return Specialist(name, 1, "base", "lora", rows=RowPolicy(replay=names, replay_percent=10))


def extra_rows(world: World) -> ImportedRows:
    return ImportedRows(world.imports, world.files, OneTokenizer(), world.erased)


def test_a_specialist_gets_the_rows_of_the_imports_that_it_names_sorted_by_id() -> None:
    world = World()
    world.run([chat(number) for number in range(20)])
    world.run([chat(number) for number in range(20, 40)], spec=replace(SPEC, name="more"))
    rows = list(extra_rows(world).rows(replaying("more", "chat", "unknown")))
    assert len(rows) == 40
    assert [row.row_id for row in rows] == sorted(row.row_id for row in rows)
    assert {row.made_by for row in extra_rows(world).rows(replaying("more"))} == {"import:more"}
    assert list(extra_rows(world).rows(replaying())) == []


def test_counts_tokens_by_the_base_with_those_of_the_template() -> None:
    world = World()
    world.run([(("system", "Be kind."), ("user", "One two three?"), ("assistant", "Four."))], [chat(1)])
    assert sorted(row.tokens for row in extra_rows(world).rows(replaying("chat"))) == [4 + 4 + 10, 2 + 3 + 1 + 15]


def test_a_share_is_a_fixed_part_of_the_rows() -> None:
    rows = [make_row("chat", chat(number)) for number in range(1000)]
    few = {row for row in rows if is_shared(row, 10)}
    assert 60 < len(few) < 140
    assert few <= {row for row in rows if is_shared(row, 30)}
    assert all(is_shared(row, 100) for row in rows)
    assert few == {row for row in rows if is_shared(replace(row, document_ids=("txt_1",)), 10)}
    world = World()
    world.run([chat(number) for number in range(80)], spec=replace(SPEC, share_percent=30))
    assert 10 < len(list(extra_rows(world).rows(replaying("chat")))) < 40


def test_other_specialists_and_unfinished_imports_give_no_rows() -> None:
    world = World()
    world.run([chat(1)], spec=replace(SPEC, specialists=("letters",)))
    assert list(extra_rows(world).rows(replaying("chat"))) == []
    assert len(list(extra_rows(world).rows(replaying("chat", name="letters")))) == 1
    world.imports.begin(replace(SPEC, name="half"), "two")
    assert list(extra_rows(world).rows(replaying("half"))) == []


def test_the_fingerprint_changes_with_the_imports_in_use() -> None:
    world = World()
    extra, specialist = extra_rows(world), replaying("chat")
    before = extra.fingerprint(specialist)
    world.run([chat(1)], spec=replace(SPEC, name="unused"))
    assert extra.fingerprint(specialist) == before
    world.run([chat(1)])
    assert extra.fingerprint(specialist) != before
    world.commands.forget("chat")
    assert extra.fingerprint(specialist) == before


def test_erasing_a_row_takes_it_and_every_other_erased_row_out_of_the_file() -> None:
    world = World()
    world.run([chat(1), chat(2)], [chat(3), (("user", "Who?"), ("assistant", "Nobody."))])
    before = world.imports.items["chat"].file
    first, second = world.barrier.find("Ada 1"), world.barrier.find("Ada 3")
    world.erased |= {*first, *second}
    assert world.eraser.forget(first[0]) == 2
    item = world.imports.items["chat"]
    assert (item.rows, item.rejected, world.texts()) == (2, {"erased": 2}, ["Who is Eve 2?", "Who?"])
    assert item.file is not None and list(world.store.objects) == [(DATASETS, item.file.key)] and item.file != before
    assert [world.eraser.forget(key) for key in (*first, *second, "txt_unknown")] == [0, 0, 0]
    assert world.imports.items["chat"] == item


def test_a_row_without_a_personal_value_has_no_id_to_erase() -> None:
    world = World()
    world.run([chat(1), (("user", "Who?"), ("assistant", "Nobody."))])
    rows = list(extra_rows(world).rows(replaying("chat")))
    assert sorted(row.document_ids for row in rows) == [(), tuple(world.barrier.find("Ada 1"))]


def test_a_row_that_is_erased_during_its_import_is_not_stored() -> None:
    world = World()

    def chunks() -> Iterator[Sequence[Messages]]:
        yield [chat(1), chat(2)]
        # Of a stored chunk, and of rows that have not been sent yet.
        world.erased |= {*world.barrier.find("Ada 1"), row_text_id(world.imports.items["chat"], 3)}
        assert world.eraser.forget(world.barrier.find("Ada 1")[0]) == 1
        yield [chat(3), chat(4), chat(5)]

    item = world.commands.run(SPEC, "one", chunks()).item
    assert (item.rows, item.rejected) == (3, {"erased": 2})
    assert world.texts() == ["Who is Eve 2?", "Who is Eve 3?", "Who is Eve 5?"]
    assert not world.barrier.find("Ada 4")


def test_a_row_that_another_replica_erased_gives_no_rows_even_before_its_file_is_written_again() -> None:
    world = World()
    world.run([chat(1), chat(2)])
    world.erased |= set(world.barrier.find("Ada 1"))
    assert [row.prompt for row in extra_rows(world).rows(replaying("chat"))] == ["Who is Eve 2?"]


def test_a_build_that_reads_a_replaced_file_is_retried() -> None:
    world = World()
    world.run([chat(1)])
    world.store.objects.clear()
    with pytest.raises(Aborted):
        list(extra_rows(world).rows(replaying("chat")))


def test_an_import_whose_file_is_damaged_is_skipped_and_counted_and_stops_no_build() -> None:
    world = World()
    world.run([chat(number) for number in range(20)])
    world.run([chat(number) for number in range(20, 50)], spec=replace(SPEC, name="more"))
    damaged = world.imports.items["more"].file
    assert damaged is not None
    world.store.objects[DATASETS, damaged.key] += b"x"
    extra = extra_rows(world)
    app = make_app(extra_rows=(extra,), specialists={"reports": replaying("chat", "more")})
    for number in range(60):
        handlers.on_document(app, put_document(app.store, number))
    with capture_logs() as logs:
        dataset = handlers.build_dataset(app, "reports", "").dataset
    assert dataset.skipped[UNREADABLE].rows == 30
    named = {(line["name"], line["reason"]) for line in logs if line["event"] == "import left out"}
    assert named == {("more", "CORRUPT_OBJECT")}
