"""What tests of synthetic share: its handlers over a migrated database, documents, and the rows of datasets."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pyarrow import parquet
from sqlalchemy import Engine, text

from services.synthetic import bootstrap, handlers
from services.synthetic.adapters import tables
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.browsing import RowBrowser
from services.synthetic.building.segments import Context
from services.synthetic.building.workers import InlineWorkers
from services.synthetic.domain import (
    BuildPolicy,
    BuildResult,
    Dataset,
    Document,
    Kind,
    Origin,
    Row,
    RowOrigin,
    Specialist,
    fingerprint,
)
from services.synthetic.erasures import DatasetEraser
from services.synthetic.handlers import Synthetic
from services.synthetic.parquet import read_column
from services.synthetic.ports import ExtraRows, TokenCounter, Tokenizers, Workers
from services.synthetic.settings import Settings
from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1.synthetic_pb2 import ListOriginsRequest
from tailor.datasets import DatasetManifest, ImportCount
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.storage.memory import MemoryStore
from tailor.values import Labels

SPECIALIST = Specialist(
    "reports", 1, "smollm2-135m-instruct", "lora", policy=BuildPolicy(1), system_prompt="Write in the house style."
)
BUILT = ("datasets", "builds", "assignments", "requests", "segments", "dataset_files")
# Servicers do not use their context.
CONTEXT: Any = None
UNUSED: Any = None
# Distinct texts, so that MinHash finds no near-duplicates among them.
NAMES = "ledger valve orchard tariff harbour kiln turbine archive ferry cellar quarry loom depot clinic granary mast"


class WordCounter(TokenCounter):
    """Every word is a token. The template cannot hold the word `unfit`."""

    digest, context_tokens = "words", 2048

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 4 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return not any("unfit" in content for _, content in messages)


class WordTokenizers(Tokenizers):
    """Has the same counter for all bases."""

    def for_base(self, base: str) -> TokenCounter:
        return WordCounter()


@dataclass(frozen=True)
class ListedRows(ExtraRows):
    """Extra rows from a list."""

    listed: list[Row]

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        yield from sorted(self.listed, key=lambda row: row.row_id)

    def fingerprint(self, specialist: Specialist) -> str:
        return fingerprint(*(row.row_id for row in self.listed))

    def origin(self, specialist: Specialist) -> RowOrigin:
        return RowOrigin((ImportCount("chat", "MIT", 30, "chat.jsonl"), ImportCount("other", "MIT", 100)), 70)


@contextmanager
def inline_workers(context: Context, documents: int) -> Iterator[Workers]:
    """Work in this process, however many documents there are."""
    yield InlineWorkers(context)


def distinct(number: int) -> str:
    words = NAMES.split()
    picked = [
        words[(number * 7 + step * (number % 5 + 1)) % len(words)] + str(number * 31 + step) for step in range(40)
    ]
    body = f"In 2024 the {' '.join(picked[:20])} were counted and {number} of them were missing."
    return f"# Report: {picked[0]}\n\n## Position\n\n{body}\n\n## Remedy\n\n1. Look for {' '.join(picked[20:])} within a week."


def guide(number: int) -> str:
    """A text with subjects that questions ask about."""
    return (
        f"# Guide depot{number}\n\n## Drivers\n\nThe gate of depot {number} opens at {number % 12}:15 on weekdays for the lorries "
        f"of Harbour Line {number}. The northern ramp of yard {number} holds {number + 3} lorries at once. A driver without the permit "
        f"of Carla Mott{number} waits behind the old kiln until the foreman of shift {number} calls. The fee for the weighbridge is "
        f"£{number + 20} and the clerk in the small office takes it in cash until {number % 9 + 9}:40 in the evening."
    )


def key_of(number: int) -> str:
    return f"doc_{number:032d}"


def put_document(
    store: MemoryStore, number: int, *, text: str = "", prompt: str | None = None, labels: Labels | None = None
) -> Document:
    """Put a document's text into the corpus."""
    data = json.dumps({"prompt": prompt, "text": text or distinct(number)}).encode()
    ref = store.put("corpus", f"documents/{key_of(number)}-{hash(data)}", data)
    kind = Kind.EXAMPLE if prompt else Kind.DOCUMENT
    return Document(key_of(number), 1, f"digest{number}", kind, labels or Labels("wiki", "risk", "internal"), ref)


def make_app(engine: Engine, store: MemoryStore, outbox: Outbox | None = None, **changes: Any) -> Synthetic:
    """The handlers as the service has them, with a tokenizer that counts words and without extra rows."""
    outbox = outbox or Outbox(engine, tables.outbox, MemoryProducer("synthetic"))
    app = bootstrap.make_app(Settings(), engine, outbox, store, lambda name, changed_since: [])
    values: dict[str, Any] = {
        "tokenizers": WordTokenizers(),
        "start_workers": inline_workers,
        "extra_rows": (),
        "specialists": {SPECIALIST.name: SPECIALIST},
        "sleep": lambda seconds: None,
    }
    return replace(app, **(values | changes))


def tick(app: Synthetic) -> list[BuildResult]:
    """Build what is due, as the jobs do."""
    return [result for name in handlers.find_due(app) for result in handlers.build_due(app, name)]


class World:
    """Handlers over a migrated database and a store in memory, with one specialist."""

    def __init__(self, engine: Engine, store: MemoryStore | None = None, **changes: Any) -> None:
        self.engine = engine
        self.store = store or MemoryStore()
        self.producer = MemoryProducer("synthetic")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.app = make_app(engine, self.store, self.outbox, **changes)
        self.repository, self.preparer = self.app.repository, self.app.preparer
        self.datasets = SqlDatasets(engine)

    def define(self, **changes: Any) -> None:
        """Change the specialist."""
        self.app.specialists["reports"] = replace(self.app.specialists["reports"], **changes)

    def put(self, *numbers: int, text: str = "", **changes: Any) -> None:
        """Publish documents. `changes` are fields of `Document`."""
        for number in numbers:
            handlers.on_document(self.app, replace(put_document(self.store, number, text=text), **changes))

    def fill(self, first: int = 0, count: int = 40) -> None:
        self.put(*range(first, first + count))

    def build(self, **options: Any) -> Dataset:
        return self.build_result(**options).dataset

    def build_result(self, **options: Any) -> BuildResult:
        """Build at once; whether it was new, too."""
        return handlers.build_dataset(self.app, "reports", "", **options)

    def origins(self) -> list[Origin]:
        """Where the specialist's documents come from."""
        return self.app.origins.list_page(ListOriginsRequest(), self.app.specialists["reports"]).items

    def manifest(self, digest: str) -> DatasetManifest:
        return DatasetManifest.parse(self.store.read("datasets", f"{digest}/manifest.json"))

    def documents(self, digest: str) -> set[str]:
        """The documents that a dataset's sources name."""
        files = self.manifest(digest).sources.files
        return {key for file in files for key in read_column(self.store.get(file.ref), "document_id")}

    def rows(self, digest: str, split: str) -> list[dict[str, Any]]:
        return read_splits(self.store, digest)[split]

    def taught(self, digest: str, split: str) -> set[str]:
        """The documents that the rows of a split are made from."""
        return {key for row in self.rows(digest, split) for key in row["document_ids"]}

    def browser(self) -> RowBrowser:
        return RowBrowser(self.datasets, self.store)

    def eraser(self, forget_import_row: Callable[[str], int] = lambda _: 0) -> DatasetEraser:
        return DatasetEraser(self.app, SqlHoldings(self.engine), self.datasets, forget_import_row)

    def published(self) -> list[models_pb2.DatasetBuilt]:
        while self.outbox.relay():
            pass
        messages = self.producer.messages("dataset.built.v1")
        return [message for message in messages if isinstance(message, models_pb2.DatasetBuilt)]

    def run_sql(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def forget_builds(self) -> None:
        """As in another installation with the same documents."""
        self.run_sql(f"TRUNCATE {', '.join(BUILT)}")

    def segments(self) -> list[Any]:
        """The stored segments, by number."""
        with self.engine.begin() as connection:
            return list(connection.execute(tables.segments.select().order_by(tables.segments.c.number)))

    def listed_keys(self) -> set[str]:
        """Keys of the files of datasets and of stored segments."""
        with self.engine.begin() as connection:
            keys = set(connection.scalars(text("SELECT key FROM dataset_files")))
        return keys.union(*(row.file_keys for row in self.segments()))


def read_splits(store: MemoryStore, digest: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of a dataset's splits, as dictionaries."""
    manifest = DatasetManifest.parse(store.read("datasets", f"{digest}/manifest.json"))
    return {
        name: [row for file in split.files for row in parquet.read_table(io.BytesIO(store.get(file.ref))).to_pylist()]
        for name, split in manifest.splits.items()
    }
