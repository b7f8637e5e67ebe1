"""A corpus as synthetic has it: texts in a store of files, documents in synthetic's own database, put there by its own handlers."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from bench.rows_texts import Paper
from services.synthetic import handlers
from services.synthetic.adapters import tables
from services.synthetic.bootstrap import MIGRATIONS, make_app
from services.synthetic.domain import Document, Kind, Specialist
from services.synthetic.settings import Settings
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.local import secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import DATABASE
from tailor.sql import connect, migrate
from tailor.storage.buckets import CORPUS
from tailor.values import Labels
from tests.unit.training.stores import FileStore

BASE = "smollm2-135m-instruct"
SPECIALIST = Specialist("bench-rows", 1, BASE, "lora")
READY_SECONDS = 90
EVENT = text("SELECT max(octet_length(value)) FROM outbox WHERE topic = 'dataset.built.v1'")


@dataclass(frozen=True)
class BenchCorpus:
    """A store in a folder, and a migrated database."""

    app: handlers.Synthetic
    store: FileStore

    @classmethod
    def connect(cls, store: Path, url: str) -> "BenchCorpus":
        """Connect to both, and migrate the database."""
        engine = connect(url)
        migrate(engine, MIGRATIONS)
        files = FileStore(store)
        # Nothing relays the outbox: its events stay where their size is read.
        outbox = Outbox(engine, tables.outbox, MemoryProducer())
        app = make_app(Settings(), engine, outbox, files, lambda _specialist, _changed_since: ())
        handlers.on_specialist(app, SPECIALIST)
        return cls(app, files)

    def publish(self, papers: Iterable[Paper]) -> int:
        """Store documents as anonymised; returns their number."""
        count = 0
        for paper in papers:
            count += 1
            data = json.dumps({"prompt": None, "text": paper.text}).encode()
            digest = hashlib.sha256(data).hexdigest()
            ref = self.store.put(CORPUS, f"documents/{digest[:3]}/{digest}.json", data)
            labels = Labels(source=paper.source, department="bench")
            document = Document(
                paper.document_id, 1, digest, Kind.DOCUMENT, labels, ref, "", paper.language, paper.spans
            )
            handlers.on_document(self.app, document)
        return count


def event_bytes(url: str) -> int:
    """The size of the largest dataset.built event of a database."""
    engine = connect(url)
    with engine.begin() as connection:
        size = int(connection.scalar(EVENT) or 0)
    engine.dispose()
    return size


@contextmanager
def database(root: Path) -> Iterator[str]:
    """The address of synthetic's database on an embedded server, which is stopped at the end."""
    running = stack.up(root, only=(DATABASE,))
    try:
        running.wait_ready(READY_SECONDS)
        plan = StackPlan(running.layout, running.snapshot().ports, secrets.ensure(running.layout))
        yield service_environment("synthetic", plan, os.environ)["TAILOR_DATABASE_URL"]
    finally:
        stack.down(root)
