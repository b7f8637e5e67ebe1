"""Rows of a table as values, over PostgreSQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import pytest
from sqlalchemy import JSON, BigInteger, Column, Engine, Identity, MetaData, Row, String, Table
from sqlalchemy.dialects.postgresql import JSONB

from tailor.api.common.v1 import common_pb2
from tailor.rows import MessageColumn, Rows
from tailor.sql import connect, transaction
from tailor.storage.ref import Ref
from tailor.values import Labels

pytestmark = pytest.mark.integration

METADATA = MetaData()
RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("state", String(16), nullable=False),
    Column("rank", BigInteger, nullable=False),
    Column("stages", JSON, nullable=False),
    Column("labels", JSONB, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("text_uri", String(64)),
    Column("text_sha256", String(64)),
    Column("text_size_bytes", BigInteger),
    Column("note", String(8), nullable=False, server_default=""),
)
MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("message", MessageColumn(common_pb2.Labels)),
)


class State(StrEnum):
    WAITS = "waits"
    RUNS = "runs"


@dataclass(frozen=True)
class Run:
    run_id: str
    state: State
    rank: int
    stages: tuple[str, ...] = ()
    labels: Labels = field(default_factory=Labels)
    counts: Mapping[str, int] = field(default_factory=dict)
    text: Ref | None = None
    derived: str = "not stored"


RUN = Run("run_1", State.WAITS, 3, ("a", "b"), Labels("wiki"), {"rows": 2}, Ref("s3://a/b", "0" * 64, 7))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    METADATA.create_all(engine)
    yield engine
    engine.dispose()


def test_a_row_has_all_of_a_value_and_is_found_by_its_columns(engine: Engine) -> None:
    runs = Rows(engine, RUNS, Run)
    bare = Run("run_2", State.RUNS, 1)
    assert runs.add(RUN, note="kept") and runs.add(bare)
    assert not runs.add(replace(RUN, rank=9))
    assert runs.find(run_id="run_1") == RUN and runs.find(run_id="run_9") is None
    assert runs.find(state=State.RUNS, text_uri=None) == bare
    assert runs.all(run_id=["run_1", "run_2"], order=runs.c.rank) == [bare, RUN]
    assert runs.all(runs.c.rank > 1, run_id=("run_2",)) == runs.all(run_id=[]) == []
    assert (runs.count(), runs.count(note="kept"), runs.has(rank=1), runs.has(rank=2)) == (2, 1, True, False)
    assert runs.value(runs.c.note, run_id="run_1") == "kept" and runs.values(runs.c.rank, order=runs.c.rank) == [1, 3]


def test_rows_are_listed_from_the_newest(engine: Engine) -> None:
    runs = Rows(engine, RUNS, Run)
    for number in range(5):
        runs.add(Run(f"run_{number}", State.WAITS, number % 2))
    assert [run.run_id for run in runs.newest_first(2)] == ["run_4", "run_3"]
    assert [run.run_id for run in runs.newest_first(2, runs.c.rank < 1)] == ["run_4", "run_2"]
    assert runs.newest(rank=1) == Run("run_3", State.WAITS, 1) and runs.newest(rank=7) is None


def test_a_row_is_replaced_if_the_condition_holds(engine: Engine) -> None:
    runs = Rows(engine, RUNS, Run)
    is_newer = runs.new.rank >= runs.c.rank
    assert runs.upsert(RUN, where=is_newer, note="first")
    assert not runs.upsert(replace(RUN, rank=2, stages=()), where=is_newer)
    assert runs.upsert(replace(RUN, rank=4, stages=()), where=is_newer, keep=("stages",), note="next")
    assert runs.find(note="next") == replace(RUN, rank=4)
    assert runs.update({"state": State.RUNS, "counts": {}}, run_id="run_1") == 1
    assert runs.find(run_id="run_1") == replace(RUN, rank=4, state=State.RUNS, counts={})
    assert (runs.delete(runs.c.rank > 9), runs.delete(state=State.RUNS), runs.count()) == (0, 1, 0)


def test_calls_of_one_connection_are_one_transaction(engine: Engine) -> None:
    with pytest.raises(KeyboardInterrupt), transaction(engine) as connection:
        runs = Rows(connection, RUNS, Run)
        runs.add_all([runs.write(RUN), runs.write(replace(RUN, run_id="run_2"))])
        assert runs.lock(run_id="run_2") == replace(RUN, run_id="run_2")
        raise KeyboardInterrupt
    assert Rows(engine, RUNS, Run).count() == 0


def test_a_column_of_messages_takes_serialised_ones(engine: Engine) -> None:
    rows, labels = Rows(engine, MESSAGES, Row), common_pb2.Labels(source="wiki")
    rows.add(id=1, message=labels)
    rows.add(id=2, message=labels.SerializeToString())
    assert rows.values(rows.c.message) == [labels, labels]
