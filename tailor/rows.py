"""Rows of a PostgreSQL table as frozen dataclasses, or as messages, whose fields have the names of the columns."""

import dataclasses
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Executable,
    LargeBinary,
    Row,
    Select,
    Table,
    TypeDecorator,
    any_,
    cast,
    delete,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from tailor.codec import dump, encode, load, without_none
from tailor.sql import transaction

T = TypeVar("T")
Condition = ColumnElement[bool]
# The columns that an `upsert` would store, to compare them with the stored ones. Making them takes longer than most statements.
_excluded = cache(lambda table: table.alias("excluded").c)


class MessageColumn(TypeDecorator[Message]):
    """A column that stores messages of a class. It takes serialised ones, too."""

    impl = LargeBinary
    cache_ok = True

    def __init__(self, cls: type[Message]) -> None:
        super().__init__()
        self.cls = cls

    def process_bind_param(self, value: Any, dialect: Any) -> bytes | None:
        return value.SerializeToString(deterministic=True) if isinstance(value, Message) else value

    def process_result_value(self, value: bytes | None, dialect: Any) -> Message | None:
        return None if value is None else self.cls.FromString(value)


class Rows(Generic[T]):
    """The rows of a table as values of `cls`, which may also be a message or `Row`. With an engine, each call is a transaction.

    A field is the column of its name, which is JSON for a nested dataclass. If there is none, a nested dataclass is the columns of its
    fields: `FIELD_NAME` of `field`, or else `NAME`; it is None if they all are. A column without a field keeps its default.

    Conditions are expressions, or values by column; a collection means any of its values. Rows are ordered by the column `position`.
    """

    def __init__(self, database: Engine | Connection, table: Table, cls: type[T], position: str = "position") -> None:
        self._database = database
        self._table = table
        self._cls = cls
        self._position = position
        self.c = table.c
        self.new = _excluded(table)

    def find(self, *conditions: Condition, **equal: object) -> T | None:
        """Any row."""
        return next(iter(self.fetch(self.select(*conditions, **equal).limit(1))), None)

    def newest(self, *conditions: Condition, **equal: object) -> T | None:
        """The row with the greatest position."""
        return next(iter(self.newest_first(1, *conditions, **equal)), None)

    def lock(self, *conditions: Condition, **equal: object) -> T | None:
        """A row that nobody else changes until the transaction ends."""
        return next(iter(self.fetch(self.select(*conditions, **equal).with_for_update())), None)

    def all(self, *conditions: Condition, order: Any = (), limit: int | None = None, **equal: object) -> list[T]:
        """Rows in the order of a column, or of several."""
        order = order if isinstance(order, tuple) else (order,)
        return self.fetch(self.select(*conditions, **equal).order_by(*order).limit(limit))

    def newest_first(self, limit: int, *conditions: Condition, **equal: object) -> list[T]:
        """The rows with the greatest positions."""
        return self.all(*conditions, order=self.c[self._position].desc(), limit=limit, **equal)

    def values(self, column: Column[Any], *conditions: Condition, order: Any = None, **equal: object) -> list[Any]:
        """The values of a column."""
        with self._connect() as connection:
            return [*connection.scalars(select(column).where(*self._where(conditions, equal)).order_by(order))]

    def value(self, column: ColumnElement[Any], *conditions: Condition, **equal: object) -> Any:
        """The value of a column or expression in any row; None without a row."""
        query = select(column).select_from(self._table).where(*self._where(conditions, equal))
        with self._connect() as connection:
            return connection.scalar(query.limit(1))

    def has(self, *conditions: Condition, **equal: object) -> bool:
        """True if there is such a row."""
        return self.value(literal(True), *conditions, **equal) is not None

    def count(self, *conditions: Condition, **equal: object) -> int:
        """The number of rows."""
        return int(self.value(func.count(), *conditions, **equal))

    def insert(self, value: T | None = None, /, **given: object) -> None:
        """Insert a row. Raises IntegrityError if it conflicts with one."""
        self._change(insert(self._table).values(self.write(value, **given)))

    def add(self, value: T | None = None, /, **given: object) -> bool:
        """Insert a row unless it conflicts with one; False if it does."""
        return self._change(insert(self._table).values(self.write(value, **given)).on_conflict_do_nothing()) > 0

    def add_all(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Insert rows that all have the same columns, without those that conflict."""
        if batch := [*rows]:
            with self._connect() as connection:
                connection.execute(insert(self._table).on_conflict_do_nothing(), batch)

    def upsert(
        self,
        value: T | None = None,
        /,
        *,
        where: Condition | None = None,
        keep: Collection[str] = (),
        computed: Mapping[str, Any] = MappingProxyType({}),
        **given: object,
    ) -> bool:
        """Insert a row, or replace the one with its primary key; False if `where` forbids that.

        A row that is replaced keeps its columns in `keep`, and gets other values in those of `computed`.
        """
        row, key = self.write(value, **given), [column.name for column in self._table.primary_key]
        changed = {name: self.new[name] for name in row if name not in {*key, *keep}} | {**computed}
        statement = insert(self._table).values(row)
        return self._change(statement.on_conflict_do_update(index_elements=key, set_=changed, where=where)) > 0

    def update(self, changed: Mapping[str, Any], /, *conditions: Condition, **equal: object) -> int:
        """Change rows; returns their number."""
        values = {name: dump(value) for name, value in changed.items()}
        return self._change(update(self._table).where(*self._where(conditions, equal)).values(values))

    def delete(self, *conditions: Condition, **equal: object) -> int:
        """Delete rows; returns their number."""
        return self._change(delete(self._table).where(*self._where(conditions, equal)))

    def select(self, *conditions: Condition, **equal: object) -> Select[Any]:
        """A query of all columns."""
        return select(self._table).where(*self._where(conditions, equal))

    def fetch(self, query: Executable) -> list[T]:
        """The values of the rows that a query selects."""
        return [self.read(row) for row in self.fetch_rows(query)]

    def fetch_rows(self, query: Executable) -> list[Row[Any]]:
        """The rows that a query selects."""
        with self._connect() as connection:
            return [*connection.execute(query)]

    def read(self, row: Row[Any], **given: Any) -> T:
        """The value of a row, which may lack columns and have others."""
        if self._cls is Row:
            return row  # type: ignore[return-value]
        if issubclass(self._cls, Message):
            return encode(self._cls, row, **given)
        plain = {}
        for field, columns in _layout(self._cls, frozenset(row._fields)).items():  # type: ignore[arg-type]
            if isinstance(columns, str):
                plain[field] = getattr(row, columns)
            else:
                parts = {name: getattr(row, column) for name, column in columns.items()}
                plain[field] = parts if any(part is not None for part in parts.values()) else None
        return load(self._cls, plain, **given)

    def write(self, value: T | None = None, /, **given: object) -> dict[str, Any]:
        """The columns of a value."""
        row = {name: dump(item) for name, item in given.items()}
        if value is None:
            return row
        plain = dump(value)
        for field, columns in _layout(type(value), frozenset(self.c.keys())).items():  # type: ignore[arg-type]
            if isinstance(columns, str):
                row.setdefault(columns, plain[field])
            else:
                for name, column in columns.items():
                    row.setdefault(column, None if plain[field] is None else plain[field][name])
        return row

    def _where(self, conditions: Iterable[Condition], equal: Mapping[str, object]) -> list[Condition]:
        return [*conditions, *(_is(self.c[name], dump(value)) for name, value in equal.items())]

    def _change(self, statement: Any) -> int:
        with self._connect() as connection:
            return connection.execute(statement, execution_options={"preserve_rowcount": True}).rowcount

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if isinstance(self._database, Connection):
            yield self._database
        else:
            with transaction(self._database) as connection:
                yield connection


def _is(column: Column[Any], value: Any) -> Condition:
    # One array as the only parameter, because a statement has at most 65,535 parameters.
    return column == any_(cast(value, ARRAY(column.type))) if isinstance(value, list) else column == value


@cache
def _layout(cls: type, columns: frozenset[str]) -> dict[str, str | dict[str, str]]:
    """The column of each field that a table has, or the columns of its fields."""
    layout: dict[str, str | dict[str, str]] = {}
    for name, hint in typing.get_type_hints(cls).items():
        kind = without_none(hint)
        if name in columns:
            layout[name] = name
        elif dataclasses.is_dataclass(kind):
            parts = {part.name: part.name for part in dataclasses.fields(kind)}
            parts |= {part: f"{name}_{part}" for part in parts if f"{name}_{part}" in columns}
            if columns.issuperset(parts.values()):
                layout[name] = parts
    return layout
