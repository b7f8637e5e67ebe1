"""Malicious files, through the pool of parsing processes with the limits of production.

Each file is rejected with a reason or becomes harmless text in under five seconds, while this process continues in bounded memory. On a busy
machine, the seconds are those of the processor.
"""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.ingestion.adapters.parse import ParseLimits, ParserPool
from services.ingestion.bootstrap import MIGRATIONS
from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    Outcome,
    Rejection,
    RejectionReason,
)
from services.ingestion.settings import Settings
from tests.conftest import migrated
from tests.ingestion import Ingestion
from tests.integration.hostile import archives, mails, pdfs, texts

pytestmark = [pytest.mark.integration, pytest.mark.slow]

FILES = archives.FILES | mails.FILES | pdfs.FILES | texts.FILES
SECONDS = 5.0
GROWTH_BYTES = 256 * 2**20
EVIL = ("root:", "steal(", "Innermost words", "/bin/")
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    limits = {
        name: Settings.model_fields[name].default
        for name in ("parse_seconds", "parse_cpu_seconds", "parse_memory_bytes")
    }
    parsers = ParserPool(ParseLimits(*limits.values()), 1)
    yield parsers
    parsers.close()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield engine


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_malicious_file_does_no_harm(engine: Engine, pool: ParserPool, name: str) -> None:
    file = FILES[name]()
    assert pool.parse(File(b"ready", "a.txt")).text == "ready\n"
    before, start, used = resident(), time.monotonic(), processor_seconds(pool)
    outcome, text = submit(engine, pool, file)
    seconds = time.monotonic() - start
    assert seconds < SECONDS or processor_seconds(pool) - used < SECONDS
    assert resident() - before < GROWTH_BYTES
    if isinstance(outcome, Rejection):
        assert outcome.reason in RejectionReason and len(outcome.hint) > 10
    else:
        assert not any(evil in text for evil in EVIL) and "\0" not in text
        text.encode()
    assert pool.parse(File(b"# Still here", "a.md")).text == "# Still here\n"


def test_there_are_at_least_fifty() -> None:
    assert len(FILES) >= 50


def submit(engine: Engine, pool: ParserPool, file: File) -> tuple[Outcome, str]:
    house = Ingestion(engine, parse=pool.parse)
    kind = DocumentKind.EXAMPLE if b'"prompt"' in file.data[:100] else DocumentKind.DOCUMENT
    outcome, texts = house.submit("1", file, kind), house.texts()
    assert len(texts) == isinstance(outcome, Acceptance)
    return outcome, texts[0].text if texts else ""


def processor_seconds(pool: ParserPool) -> float:
    """The processor time of this process, of the workers that ended, and of the running worker."""
    worker = pool._slots.queue[0]
    assert worker is not None
    fields = Path(f"/proc/{worker._process.pid}/stat").read_text().rpartition(")")[2].split()
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + (int(fields[11]) + int(fields[12])) / TICKS


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
