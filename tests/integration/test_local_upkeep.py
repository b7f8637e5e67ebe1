"""The upkeep of the embedded stores: what expires, and what is left in their files of what was deleted."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from minio import Minio

from tailor.local import stack
from tailor.local.layout import DATABASE, STORE, Layout
from tailor.local.secrets import ADMIN, ensure
from tailor.local.upkeep import compact_database, compact_store, delete_expired
from tailor.storage.buckets import BUCKETS, CORPUS, DRAFTS, QUARANTINE
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TEXT = b"Ravenscroft-Ogilvie of 14 Larkspur Hollow"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    directory = tmp_path_factory.mktemp("upkeep") / ".tailor"
    stack.up(directory, only=(STORE, DATABASE)).wait_ready(600)
    yield Layout(directory.resolve())
    stack.down(directory)


@pytest.fixture(scope="module")
def client(layout: Layout) -> Minio:
    key = ensure(layout).s3(ADMIN)
    endpoint = stack.connection(layout.root).s3_endpoint
    return Minio(endpoint, access_key=key.access_key, secret_key=key.secret_key, secure=False, region="us-east-1")


def _files_with(folder: Path, text: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


def test_objects_expire_by_the_rules_of_their_bucket_and_nothing_else_does(client: Minio) -> None:
    for bucket in BUCKETS:
        client.put_object(bucket, "kept/letter" if bucket == QUARANTINE else "letter", io.BytesIO(b"raw"), 3)
    client.put_object(QUARANTINE, "documents/letter", io.BytesIO(b"raw"), 3)
    expected = {
        6: 0,
        8: 1,  # texts in quarantine
        29: 0,
        31: 1,  # drafts
        365: 0,
        367: 1,  # texts kept for replays
    }
    deleted = {days: delete_expired(client, datetime.now(UTC) + timedelta(days=days)) for days in expected}
    assert deleted == expected
    left = {bucket: [item.object_name for item in client.list_objects(bucket, recursive=True)] for bucket in BUCKETS}
    assert left == {bucket: [] if bucket in {QUARANTINE, DRAFTS} else ["letter"] for bucket in BUCKETS}


def test_a_deleted_text_leaves_the_stores_files(layout: Layout, client: Minio) -> None:
    for number in range(20):
        client.put_object(CORPUS, f"others/{number}", io.BytesIO(b"kept" * 1000), 4000)
    client.put_object(CORPUS, "erased", io.BytesIO(TEXT), len(TEXT))
    client.remove_object(CORPUS, "erased")
    assert _files_with(layout.data(STORE), TEXT)
    ports = stack.Stack(layout).snapshot().ports

    def is_gone() -> bool:
        # The store deletes in the background, some seconds after its answer.
        compact_store(ports.address("master"), layout.data(STORE))
        return _files_with(layout.data(STORE), TEXT) == []

    wait_until(is_gone, 60)
    for number in range(20):
        assert client.get_object(CORPUS, f"others/{number}").read() == b"kept" * 1000


def test_an_erased_name_leaves_the_databases_files(layout: Layout) -> None:
    ports, secrets = stack.Stack(layout).snapshot().ports, ensure(layout)
    superuser = f"postgresql://postgres:{secrets.database_password(ADMIN)}@{ports.address('database')}/ingestion"
    owner = f"postgresql://ingestion:{secrets.database_password('ingestion')}@{ports.address('database')}/ingestion"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("CREATE TABLE submissions (id integer PRIMARY KEY, file_name text)")
        rows = [(number, f"file {number}") for number in range(500)]
        connection.cursor().executemany("INSERT INTO submissions VALUES (%s, %s)", rows)
        connection.execute("UPDATE submissions SET file_name = %s WHERE id = 7", [TEXT.decode()])
        connection.execute("UPDATE submissions SET file_name = '' WHERE id = 7")
        assert _files_with(layout.data(DATABASE), TEXT)
        compact_database(superuser)
        assert _files_with(layout.data(DATABASE), TEXT) == []
        assert connection.execute("SELECT count(*) FROM submissions").fetchone() == (500,)


def test_the_stack_calls_the_upkeep_of_both_stores(layout: Layout) -> None:
    from tailor.local.database import database
    from tailor.local.store import store

    ports, secrets = stack.Stack(layout).snapshot().ports, ensure(layout)
    for component in (store(layout, ports, secrets), database(layout, ports, secrets)):
        assert component.upkeep is not None
        component.upkeep()
