"""What ingestion, synthetic and evaluation delete from their databases on an erasure."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from services.ingestion.adapters.erasures import DocumentEraser
from services.ingestion.bootstrap import MIGRATIONS as INGESTION
from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.bootstrap import MIGRATIONS as SYNTHETIC
from tailor.events.erased import Erased
from tailor.sql import connect
from tailor.storage.memory import MemoryStore
from tests.databases import fill

pytestmark = pytest.mark.integration

Database = Callable[[Path], Engine]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    engine = connect(database_url)

    def create(migrations: Path) -> Engine:
        fill(database_url, migrations)
        return engine

    yield create
    engine.dispose()


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def rows(engine: Engine, query: str) -> list[tuple[object, ...]]:
    with engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def test_ingestion_deletes_external_ids_file_names_and_quarantined_objects(database: Database) -> None:
    engine, store = database(INGESTION), MemoryStore()
    run(
        engine,
        "INSERT INTO documents (document_id, external_hash, external_id, file_name, digest) "
        "VALUES ('doc_1', 'h1', 'jenkins-cv', 'jenkins.pdf', 'd1'), ('doc_2', 'h2', 'other', 'other.pdf', 'd2')",
        "INSERT INTO submissions (key, submission_id, document_id, outcome) VALUES ('k', 'sub_1', 'doc_1', '{}')",
    )
    for document_id in ("doc_1", "doc_2"):
        store.put("quarantine", f"documents/{document_id}/1-ab", b"x")
    eraser = DocumentEraser(engine, store)
    counts = eraser.forget(Erased("doc_1", "ers_1")).counts
    assert counts == {"entries": 1, "submissions": 1, "objects": 1}
    assert [key for _, key in store.objects] == ["documents/doc_2/1-ab"]
    documents = rows(
        engine, "SELECT external_hash, external_id, file_name, digest, erasure_id FROM documents ORDER BY 1"
    )
    assert documents == [("h1", "", "", None, "ers_1"), ("h2", "other", "other.pdf", "d2", "")]
    assert not any(eraser.forget(Erased("doc_1", "ers_1")).counts.values())
    eraser.lift("doc_1")
    assert rows(engine, "SELECT erasure_id FROM documents WHERE document_id = 'doc_1'") == [("",)]


def test_synthetic_deletes_a_document_with_its_sketch_and_its_sides(database: Database) -> None:
    engine = database(SYNTHETIC)
    for number, document_id in enumerate(("doc_1", "doc_2")):
        run(
            engine,
            "INSERT INTO documents (document_id, sequence, digest, kind, source, department, confidentiality, text_uri, "
            f"text_sha256, text_size_bytes, draft_id, language, fingerprint, position) VALUES ('{document_id}', 1, 'd', "
            "'document', '', '', '', 's3://corpus/x', 'ab', 1, '', 'en', 0, 1)",
            f"INSERT INTO pending VALUES ('{document_id}', 1)",
            f"INSERT INTO assignments VALUES ('reports', '{document_id}', '{document_id}', false, 0)",
            "INSERT INTO sketches (document_id, arrival, text_sha256, characters, letters, parts, seconds) VALUES "
            f"('{document_id}', {number}, 'ab', 1, 1, '{{}}', 0)",
        )
    holdings = SqlHoldings(engine)
    assert holdings.forget_document("doc_1") == (1, [])
    for table in ("documents", "pending", "assignments", "sketches"):
        assert rows(engine, f"SELECT document_id FROM {table}") == [("doc_2",)]
    assert holdings.forget_document("doc_1") == (0, [])
    datasets = SqlDatasets(engine)
    assert (datasets.all(), datasets.specialists(), datasets.newest_digests("reports")) == ([], [], {})
