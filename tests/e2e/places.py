"""Every place outside the raw zone that could hold personal data, as text: buckets, topics, databases, logs, metrics."""

import io
import json
import threading
import urllib.request
from collections.abc import Iterator

import psycopg
from psycopg import sql
from pyarrow import parquet

from tailor.errors import NotFound
from tailor.events.table import tail
from tailor.events.topics import load_topics
from tailor.local.environment import StackPlan
from tailor.local.layout import SERVICES, WITH_DATABASE
from tailor.local.secrets import ADMIN
from tailor.local.store_access import s3_settings
from tailor.settings import KafkaSettings
from tailor.storage.buckets import BUCKETS, QUARANTINE
from tailor.storage.s3 import S3Store

Place = tuple[str, str]


def all_places(plan: StackPlan, kafka: KafkaSettings) -> Iterator[Place]:
    """Yield the name and text of each place outside the raw zone."""
    yield from buckets(plan)
    yield from topics(kafka)
    yield from databases(plan)
    yield from logs(plan)
    yield from metrics(plan)


def buckets(plan: StackPlan) -> Iterator[Place]:
    """Every object except those in quarantine. Parquet is shown as rows; model weights are left out.

    An object that is removed meanwhile holds nothing any more.
    """
    store = S3Store.from_settings(s3_settings(plan.stores.s3(ADMIN)))
    for bucket in BUCKETS:
        if bucket == QUARANTINE:
            continue
        for name in store.list_keys(bucket, ""):
            try:
                data = store.read(bucket, name)
            except NotFound:
                continue  # A training removed an older checkpoint after the listing.
            if data[:4] == b"PAR1":
                yield f"{bucket}/{name}", json.dumps(parquet.read_table(io.BytesIO(data)).to_pylist(), default=str)
            elif len(data) < 20_000_000:
                yield f"{bucket}/{name}", readable(data)


def topics(kafka: KafkaSettings) -> Iterator[Place]:
    """Every event outside the raw zone, with its key and headers."""
    names = [name for name, topic in load_topics().items() if not topic.raw_zone]
    stop = threading.Event()
    for event in tail(kafka, names, stop, from_beginning=True, idle=stop.set):
        yield event.topic, f"{event.key}\n{event.headers}\n{readable(event.value or b'')}"


def databases(plan: StackPlan) -> Iterator[Place]:
    """Every row of every table of every service."""
    for name in WITH_DATABASE:
        url = plan.stores.database_url(ADMIN).replace("+psycopg", "")
        connection = psycopg.connect(url.rpartition("/")[0] + f"/{name}")
        with connection:
            tables = connection.execute(
                "SELECT table_schema, table_name FROM information_schema.tables "
                "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            for schema, table in tables:
                query = sql.SQL("SELECT t::text FROM {}.{} t").format(sql.Identifier(schema), sql.Identifier(table))
                rows = "\n".join(str(row[0]) for row in connection.execute(query))
                yield f"database {name}.{table}", rows


def logs(plan: StackPlan) -> Iterator[Place]:
    """Every log file of the stack."""
    for path in sorted(plan.layout.log_file("registry").parent.iterdir()):
        yield f"log {path.name}", path.read_text(encoding="utf-8", errors="replace")


def metrics(plan: StackPlan) -> Iterator[Place]:
    """The metrics of each service."""
    for service in SERVICES:
        with urllib.request.urlopen(f"http://{plan.ports.address(f'{service}-status')}/metrics", timeout=60) as answer:
            yield f"metrics {service}", answer.read().decode()


def readable(data: bytes) -> str:
    """The bytes as text, with the escapes of JSON removed."""
    text = data.decode("utf-8", errors="replace")
    try:
        return json.dumps(json.loads(text), ensure_ascii=False).replace("\\n", "\n").replace('\\"', '"')
    except ValueError:
        return text
