"""Builds at size over PostgreSQL: killed processes, many documents, passages that several documents share."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from services.synthetic import handlers, wire
from services.synthetic.adapters.conditions import count_new_items, newest_item
from services.synthetic.building.workers import start_workers
from services.synthetic.domain import BuildPolicy, Dataset
from services.synthetic.near_duplicates import preparer as preparer_module
from services.synthetic.views import RowFilter, RowPosition
from tailor.datasets import Figures, SkippedCount
from tailor.events.erased import Erased
from tailor.pipelines import PipelineStage
from tailor.sql import connect
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, Filters, RowPolicy, Selection
from tests.synthetic import SPECIALIST, World, distinct, key_of, put_document
from tests.waiting import PATIENCE

pytestmark = pytest.mark.integration

METHOD = (
    "We read the ledgers of {client} for the whole year and compared every posting with the voucher that supports it. Where a voucher was "
    "missing we asked the accountants, noted their answer and drew a second sample of forty postings from the same month. {client} gave us "
    "access to all systems, and no posting was changed while we worked on the premises."
)


class FolderStore(MemoryStore):
    """Keeps objects in a folder, so that processes share them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_bytes(data)
        path.with_suffix(".part").rename(path)
        return super().put(bucket, key, data, content_type)

    def read(self, bucket: str, key: str) -> bytes:
        path = self.folder / bucket / key
        return path.read_bytes() if path.exists() else super().read(bucket, key)

    def exists(self, bucket: str, key: str) -> bool:
        return (self.folder / bucket / key).exists()

    def delete(self, bucket: str, key: str) -> None:
        super().delete(bucket, key)
        (self.folder / bucket / key).unlink(missing_ok=True)


def report_with(number: int, section: str) -> str:
    return f"{distinct(number)}\n\n## Method\n\n{section}"


def count_of(engine: Engine, table: str) -> int:
    with engine.begin() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


def grams(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """All 13-grams of the rows' answers, word by word."""
    found: set[tuple[str, ...]] = set()
    for row in rows:
        answer = " ".join(part["content"] for part in row["messages"] if part["role"] == "assistant")
        words = "".join(c if c.isalnum() else " " for c in answer.lower()).split()
        found.update(tuple(words[start : start + 13]) for start in range(len(words) - 12))
    return found


def test_documents_with_the_same_section_but_other_names_are_on_one_side(world: World) -> None:
    clients = ["Norbury Mills", "Aldgate Foods", "Hexham Freight", "Tallis and Sons"]
    for number in range(60):
        section = (
            METHOD.format(client=clients[number])
            if number < len(clients)
            else f"Nothing else. {distinct(number + 500)}"
        )
        world.put(number, text=report_with(number, section))
    world.build_result()
    alike = [key_of(number) for number in range(len(clients))]
    assert len(set(world.repository.sides("reports", alike).values())) == 1
    with world.engine.begin() as connection:
        query = text("SELECT count(DISTINCT component_id) FROM assignments WHERE document_id = ANY(:ids)")
        assert connection.scalar(query, {"ids": alike}) == 1


def test_no_held_out_answer_shares_thirteen_words_with_train(world: World) -> None:
    """A sentence in a few documents is a share; the same in many documents is boilerplate."""
    few = "The auditors found that the lock of the northern gate had been changed twice without any record in the house book."
    many = "This report was written for the board only and must not be shown to anyone outside of the company without consent."
    for number in range(80):
        own = distinct(number + 1000).replace("#", "").replace("\n", " ")
        extra = f"{own} {few if number % 16 == 0 else ''} {many}"
        world.put(number, text=f"{distinct(number)}\n\n## Note\n\n{extra}")
    world.define(rows=RowPolicy(held_out_percent=50))
    dataset = world.build()
    train, held_out = (grams(world.rows(dataset.digest, split)) for split in ("train", "held_out"))
    shared = {" ".join(gram) for gram in train & held_out}
    assert shared and all(gram in " ".join(many.lower().split()).replace(".", "") or "only" in gram for gram in shared)
    assert not any("northern gate" in gram for gram in shared)
    assert dataset.figures.overlap == 0 and dataset.skipped["overlap"].rows > 0


def test_a_new_document_leaves_the_files_of_other_segments_as_they_are(world: World) -> None:
    world.fill(count=30)
    first = world.build()
    # As if 20 segments lay between.
    world.run_sql("UPDATE sketches SET arrival = arrival * 512")
    second = world.build()
    world.fill(first=30, count=1)
    third = world.build()
    files = [{file.ref.key for file in world.manifest(d.digest).split("train").files} for d in (first, second, third)]
    assert len(files[0]) == 1 and len(files[1]) > 20
    assert len(files[1] - files[2]) <= 1 and len(files[2] - files[1]) <= 1
    # The rows of a document are found in few files.
    finder = world.datasets
    newest = finder.last_build("reports", DatasetKind.SFT)
    assert newest is not None
    for document_id in world.documents(newest.digest):
        named = finder.files_of(newest, document_id)
        page = world.browser().read(newest, RowFilter(document_id=document_id), RowPosition(), 100)
        assert (
            len(named & files[2]) <= 1
            and 2 * page.scanned < third.train_rows
            and page.rows
            and {row.document_ids for _, row in page.rows} == {(document_id,)}
        )


def test_an_erasure_finds_the_datasets_of_the_document_and_deletes_unshared_files(world: World) -> None:
    world.fill(count=40)
    old = world.build()
    erased = key_of(7)
    assert erased in world.documents(old.digest)
    eraser = world.eraser()
    forgotten = eraser.forget(Erased(erased, "ers_1"))
    assert forgotten.datasets == (old.digest,)
    (new,) = world.datasets.all(specialist="reports")
    assert new.digest != old.digest and erased not in world.documents(new.digest)
    manifest = world.manifest(new.digest)
    splits = [file for split in manifest.splits.values() for file in split.files]
    listed = {file.ref.key for file in (*manifest.sources.files, *splits)}
    stored = {key for bucket, key in world.store.objects if bucket == "datasets"}
    segments = {key for row in world.segments() for key in row.file_keys}
    parts = [part for row in world.segments() for part in row.facts["parts"]]
    assert len(segments - listed) == 1 + len(parts), "The segment's 13-grams and its parts belong to no dataset."
    assert stored == listed | segments | {f"{new.digest}/manifest.json"}
    assert not any(eraser.forget(Erased(erased, "ers_1")).counts.values())


def kill_when(process: Any, is_time: Callable[[], bool]) -> None:
    """Kill a process with SIGKILL in the middle of its work."""
    process.start()
    end = time.monotonic() + 60 * PATIENCE
    while not is_time() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def _prepare(url: str, folder: str) -> None:
    preparer_module.BATCH = 5
    World(connect(url), FolderStore(Path(folder))).preparer.prepare(Selection())


def _build(url: str, folder: str) -> None:
    handlers.build_dataset(World(connect(url), FolderStore(Path(folder))).app, "reports", "killed")


def test_a_killed_preparer_loses_and_repeats_nothing(engine: Engine, database_url: str, tmp_path: Path) -> None:
    world = World(engine, FolderStore(tmp_path))
    world.fill(count=120)
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(database_url, str(tmp_path)))
    kill_when(process, lambda: count_of(engine, "sketches") >= 10)
    done = count_of(engine, "sketches")
    assert done + count_of(engine, "pending") == 120 and done % 5 == 0
    world.preparer.prepare(Selection())
    assert count_of(engine, "sketches") == 120 and count_of(engine, "pending") == 0
    with engine.begin() as connection:
        arrivals = connection.scalars(text("SELECT arrival FROM sketches ORDER BY arrival")).all()
    assert list(arrivals) == list(range(120))


def test_a_killed_build_leaves_no_lock_and_is_continued(engine: Engine, database_url: str, tmp_path: Path) -> None:
    world = World(engine, FolderStore(tmp_path))
    world.fill(count=60)
    world.preparer.prepare(Selection())
    world.run_sql("UPDATE sketches SET arrival = arrival * 512")
    process = multiprocessing.get_context("spawn").Process(target=_build, args=(database_url, str(tmp_path)))
    kill_when(process, lambda: count_of(engine, "segments") >= 5)
    stored = {row.number: row.facts for row in world.segments()}
    assert count_of(engine, "datasets") == 0 and stored
    built = handlers.build_dataset(world.app, "reports", "again")
    assert built.created and {row.number: row.facts for row in world.segments()}.items() >= stored.items()
    digest = built.dataset.digest
    world.forget_builds()
    assert world.build().digest == digest
    assert count_of(engine, "written_files") == 0


def test_worker_processes_make_the_same_dataset(engine: Engine, tmp_path: Path) -> None:
    world = World(engine, FolderStore(tmp_path))
    world.fill(count=210)
    digest = world.build().digest
    world.forget_builds()
    world.app = replace(world.app, start_workers=start_workers)
    assert world.build().digest == digest


INSERT_MANY = text("""
    INSERT INTO documents (document_id, sequence, digest, kind, source, department, confidentiality, text_uri, text_sha256,
        text_size_bytes, draft_id, language, spans, fingerprint, position)
    SELECT 'doc_' || lpad(n::text, 32, '0'), 1, 'd' || n, 'document', 'wiki', 'risk', 'internal', :uri, :sha, :size, '', 'en', '[]',
        md5(n::text), n FROM generate_series(1, :count) n
""")
JUDGE_MANY = text("""
    INSERT INTO judgements (judgement_id, specialist, ranking, rubric, comment, position)
    SELECT 'jdg_' || n, CASE WHEN n % 2 = 0 THEN 'reports' ELSE 'memos' END, '["a", "b"]', '{}', '', n FROM generate_series(1, 20000) n
""")
SKETCH_MANY = text("""
    INSERT INTO sketches (document_id, arrival, text_sha256, cluster_id, characters, letters, parts, seconds)
    SELECT document_id, position - 1, text_sha256, position, 1000, 800, '{}', 0.001 FROM documents
""")


def insert_many(engine: Engine, store: MemoryStore, count: int) -> None:
    """Documents with one small text, prepared as if all were different."""
    document = put_document(store, 1, text=distinct(1))
    with engine.begin() as connection:
        values = {"uri": document.text.uri, "sha": document.text.sha256, "size": document.text.size_bytes}
        connection.execute(INSERT_MANY, {**values, "count": count})
        connection.execute(SKETCH_MANY)
        connection.execute(JUDGE_MANY)
        connection.execute(
            text("INSERT INTO newest_labels SELECT 'wiki', 'risk', 'internal', max(position), now() FROM documents")
        )
        connection.execute(text("ANALYZE"))


def plan(engine: Engine, query: Any) -> str:
    with engine.begin() as connection:
        sql = query.compile(engine, compile_kwargs={"literal_binds": True})
        return "\n".join(connection.scalars(text(f"EXPLAIN (ANALYZE, TIMING OFF) {sql}")))


def test_seventy_thousand_documents_need_no_long_lists_and_the_tick_reads_no_more_than_with_few(world: World) -> None:
    insert_many(world.engine, world.store, 70_000)
    specialist = replace(SPECIALIST, policy=BuildPolicy(5))
    for kind in DatasetKind:
        for query in (newest_item(specialist, kind), count_new_items(specialist, kind, 60_000, 5)):
            text_plan = plan(world.engine, query)
            assert "Seq Scan on documents" not in text_plan and "Seq Scan on judgements" not in text_plan
            assert "ix_documents" in text_plan or "newest_labels" in text_plan or "ix_judgements" in text_plan
    assert world.repository.progress(specialist, DatasetKind.SFT).new_items == 5
    with world.app.corpora.open(
        replace(SPECIALIST, rows=RowPolicy(max_held_out_rows=20, held_out_percent=1))
    ) as corpus:
        ids = corpus.unassigned()
        assert len(ids) == 70_000 and list(corpus.links(10)) == []
        assert len(corpus.sources(ids)) == len(corpus.segment_of(ids)) == 70_000
        assert len(corpus.representatives(ids[:600])) == 600
    assert world.repository.sides("reports", ids) == {}
    known = [replace(put_document(world.store, 1), document_id=key) for key in ids[:3]]
    assert world.repository.unknown_documents(known) == []


def test_the_event_of_a_large_dataset_is_small() -> None:
    reasons = "language length boilerplate source overlap repeated max_train_tokens no_room short_answer".split()
    dataset = Dataset(
        digest="d" * 64,
        specialist="s" * 63,
        base="b" * 63,
        pipeline=tuple(PipelineStage(stage, "r" * 63) for stage in ("sft", "reward", "rloo")),
        manifest=Ref(f"s3://datasets/{'d' * 64}/manifest.json", "d" * 64, 10**9),
        train_rows=2**31 - 1,
        held_out_rows=2**31 - 1,
        documents=100_000,
        near_duplicates=100_000,
        figures=Figures(0.987654321, 0.987654321, 0.0, 10**12),
        skipped={reason: SkippedCount(10**9, 10**9, 10**12) for reason in reasons},
    )
    assert wire.from_dataset(dataset).ByteSize() < 4096


def test_boilerplate_is_not_taught_and_a_new_repetition_rebuilds_its_segment(world: World) -> None:
    footer = "This paper is confidential and is meant for its addressee only, in every branch of the house."
    world.define(filters=Filters(boilerplate_documents=12))
    for number in range(40):
        extra = f"\n\n{footer}" if number < 11 else ""
        world.put(number, text=distinct(number) + extra)
    first = world.build()
    assert "boilerplate" not in first.skipped
    world.put(41, text=f"{distinct(41)}\n\n{footer}")
    second = world.build()
    assert second.skipped["boilerplate"].characters == 12 * len(footer.replace(" ", ""))
    answers = [part["content"] for row in world.rows(second.digest, "train") for part in row["messages"]]
    assert not any(footer in answer for answer in answers)
