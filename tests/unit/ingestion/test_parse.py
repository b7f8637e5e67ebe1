"""The pool of parsing processes."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.ingestion.adapters.parse import ParseLimits, ParserPool
from services.ingestion.domain import File, Rejected, RejectionReason
from services.ingestion.formats.read import read
from tests.unit.ingestion.compound import make_msg
from tests.unit.ingestion.test_attachments import make_mail, make_pptx, make_xlsx
from tests.unit.ingestion.test_formats import make_docx, make_pdf

MEMORY = 1536 * 2**20


@pytest.fixture
def pool() -> Iterator[ParserPool]:
    parsers = ParserPool(ParseLimits(wall_seconds=20, cpu_seconds=20, memory_bytes=MEMORY), 1)
    yield parsers
    parsers.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[ParserPool]:
    parsers = ParserPool(ParseLimits(wall_seconds=20, cpu_seconds=20, memory_bytes=MEMORY), 1)
    yield parsers
    parsers.close()


def test_parses_in_one_warm_child(pool: ParserPool) -> None:
    assert [pool.parse(File(text.encode(), "a.md")).text for text in ("one", "two")] == ["one\n", "two\n"]


def test_passes_rejections_on(pool: ParserPool) -> None:
    with pytest.raises(Rejected) as caught:
        pool.parse(File(b"words", "a.pdf"))
    assert (caught.value.reason, caught.value.format) == (RejectionReason.CORRUPT, "pdf")


def test_replaces_a_child_that_exceeds_its_wall_time() -> None:
    parsers = ParserPool(ParseLimits(wall_seconds=0.01, cpu_seconds=20, memory_bytes=MEMORY), 1)
    try:
        for _ in range(2):
            with pytest.raises(Rejected) as caught:
                parsers.parse(File(b"# slow", "a.md"))
            assert caught.value.reason == RejectionReason.TIMEOUT
    finally:
        parsers.close()


def test_a_file_whose_child_got_no_processor_time_is_parsed_again() -> None:
    parsers = ParserPool(ParseLimits(wall_seconds=8, cpu_seconds=20, memory_bytes=MEMORY), 1)
    try:
        before = children()
        parsers.parse(File(b"warm", "a.txt"))
        (child,) = children() - before
        os.kill(child, signal.SIGSTOP)
        assert parsers.parse(File(b"# Late", "a.md")).text == "# Late\n"
        assert child not in children()
    finally:
        parsers.close()


def children() -> set[int]:
    """The processes that this one has started."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(process) for task in tasks for process in task.read_text().split()}


def test_a_child_that_runs_out_of_memory_rejects_one_document() -> None:
    parsers = ParserPool(ParseLimits(wall_seconds=30, cpu_seconds=20, memory_bytes=200 * 2**20), 1)
    try:
        with pytest.raises(Rejected) as caught:
            parsers.parse(File(b"x" * (150 * 2**20), "a.txt"))
        assert caught.value.reason in (RejectionReason.TOO_LARGE, RejectionReason.CORRUPT)
        assert parsers.parse(File(b"small", "a.txt")).text == "small\n"
    finally:
        parsers.close()


FORMATS: dict[str, Callable[[], bytes]] = {
    "a.txt": lambda: "Der Prüfer hält das für nötig.".encode("cp1252"),
    "a.html": lambda: (
        b"<h1>Words</h1><p>Six of them stand here.</p><ul>" + b'<li><a href="/a">Accounts</a></li>' * 5 + b"</ul>"
    ),
    "a.json": lambda: b'{"a": [1]}',
    "a.csv": lambda: b"a,b\n1,2\n",
    "a.eml": lambda: make_mail(memo_docx=make_docx(), paper_pdf=make_pdf()).as_bytes(),
    "a.docx": make_docx,
    "a.pptx": make_pptx,
    "a.xlsx": make_xlsx,
    "a.pdf": make_pdf,
    "a.msg": lambda: make_msg({"subject": "Words", "body": "Words."}),
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_sandboxed_child_parses_like_an_open_process(shared: ParserPool, name: str) -> None:
    file = File(FORMATS[name](), name)
    assert shared.parse(file) == read(file)


def test_a_small_file_may_use_less_processor_time_than_a_large_one() -> None:
    limits = ParseLimits(wall_seconds=60, cpu_seconds=45, memory_bytes=MEMORY)
    assert [limits.cpu_seconds_for(size) for size in (0, 100_000, 20 * 2**20)] == [2, 6, 45]


def test_a_text_that_is_too_long_is_rejected_in_the_child() -> None:
    parsers = ParserPool(ParseLimits(wall_seconds=20, cpu_seconds=20, memory_bytes=MEMORY, max_chars=100), 1)
    try:
        with pytest.raises(Rejected) as caught:
            parsers.parse(File(b"words " * 100, "a.txt"))
        assert caught.value.reason == RejectionReason.TOO_LARGE
    finally:
        parsers.close()


@pytest.mark.parametrize(
    "spans",
    [
        [["page", 1, 0, 7]],
        [["page", 1, 3, 3]],
        [["page", 0, 0, 1]],
        [["page", 10**30, 0, 1]],
        [["page", True, 0, 1]],
        [["page", 1, 0.0, 1]],
        [["Sarah Jenkins", 1, 0, 1]],
        [["page", 1]],
        "page",
        7,
        None,
    ],
)
def test_spans_outside_the_text_from_a_child_that_was_taken_over_are_rejected(pool: ParserPool, spans: object) -> None:
    pool.parse(File(b"words", "a.txt"))
    worker = pool._slots.get()
    assert worker is not None
    answer: dict[str, Any] = {"text": "words\n", "format": "txt", "prompt": None, "removed": {}}
    with pytest.raises(Rejected) as caught:
        worker._read(json.dumps({**answer, "spans": spans}).encode())
    assert caught.value.reason is RejectionReason.CORRUPT
    assert worker._read(json.dumps({**answer, "spans": [["page", 1, 0, 6]]}).encode()).spans
    pool._slots.put(worker)


@pytest.mark.parametrize(
    "removed", [{"navigation": -1}, {"navigation": "many"}, {"Jane Doe": 1}, ["navigation"], {"contents": 2**40}]
)
def test_counts_from_a_child_that_was_taken_over_are_rejected(pool: ParserPool, removed: object) -> None:
    pool.parse(File(b"words", "a.txt"))
    worker = pool._slots.get()
    assert worker is not None
    answer: dict[str, Any] = {"text": "words\n", "format": "txt", "prompt": None, "spans": []}
    with pytest.raises(Rejected) as caught:
        worker._read(json.dumps({**answer, "removed": removed}).encode())
    assert caught.value.reason is RejectionReason.CORRUPT
    assert worker._read(json.dumps({**answer, "removed": {"navigation": 7}}).encode()).removed == {"navigation": 7}
    pool._slots.put(worker)


def test_children_get_no_secrets(pool: ParserPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_QUARANTINE_KEY", "secret")
    pool.parse(File(b"words", "a.txt"))
    worker = pool._slots.get()
    assert worker is not None
    with open(f"/proc/{worker._process.pid}/environ", "rb") as file:
        environment = file.read()
    pool._slots.put(worker)
    assert b"TAILOR_" not in environment and os.environ["TAILOR_QUARANTINE_KEY"] == "secret"
