"""Lists in PostgreSQL: pages of a query in an order, with a search and filters over everything.

The contract names what a list knows: `list` at the field `query` of its requests. A name is a column, or else a value of the column
`listed`, in which `tailor.columns.list_values` stores those of a message, with the searched ones in `searched`.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from sqlalchemy import (
    Column,
    ColumnElement,
    DateTime,
    Row,
    Select,
    String,
    Text,
    and_,
    cast,
    func,
    literal,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DataError
from sqlalchemy.types import NullType

from tailor.api.common.v1.common_pb2 import ListQuery
from tailor.columns import list_names
from tailor.errors import InvalidArgument, Reason
from tailor.rows import Rows
from tailor.rpc.paging import invalid_token, page_size

T = TypeVar("T")
U = TypeVar("U")

MAX_SEARCH_CHARS = 200
MAX_FILTER_CHARS = 20_000
# Substitutes for absent values in an order.
LEAST = {DateTime: "'-infinity'::timestamptz", String: "''", JSONB: "'null'::jsonb"}


def listed_columns() -> list[Column[Any]]:
    """The columns of a table that stores messages, for `list_values`."""
    return [
        Column("listed", JSONB, nullable=False, server_default="{}"),
        Column("searched", Text, nullable=False, server_default=""),
    ]


@dataclass(frozen=True)
class ListPage(Generic[T]):
    """A page of a list, and the token of the next one; empty on the last."""

    items: list[T]
    next_token: str = ""


class Listing(Generic[T]):
    """A list: the rows of a query by a unique `key`, the greatest first if `descending`, or in the order `order_by`.

    `columns` are expressions of names that are no column of the table. `derived` are functions that give the values of filters by an item
    as it is listed, for what no query knows; the list is then read on until a page is full. Page tokens have no value of a `private` name.
    """

    def __init__(
        self,
        rows: Rows[T],
        request: Message,
        key: ColumnElement[Any],
        *,
        descending: bool = False,
        order_by: str = "",
        columns: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
        derived: Mapping[str, Callable[[Any], object]] = MappingProxyType({}),
        private: Collection[str] = (),
    ) -> None:
        self._rows = rows
        self._request: Any = request
        self._key = key
        self._query: ListQuery = getattr(request, "query", ListQuery())
        self._names = list_names(type(request))
        self._columns = columns
        self._derived = derived
        name, _, direction = (self._query.order_by or order_by).partition(" ")
        self._check(name, direction)
        self._order = [self._order_value(name), key] if name else [key]
        self._in_token = [key] if name in private else self._order
        self._descending = bool(direction) if name else descending

    def page(
        self,
        query: Select[Any],
        *,
        size: tuple[int, int] = (50, 200),
        read: Callable[[Row[Any]], U] | None = None,
        keep: Callable[[U], bool] = lambda item: True,
    ) -> ListPage[U]:
        """The request's page of the query's rows that match and are kept, as `read` gives them. `size` is the default and the maximum.

        Raises InvalidArgument (INVALID_PAGE_SIZE, INVALID_PAGE_TOKEN).
        """
        limit, position = page_size(self._request.page_size, *size), self._read_token(self._request.page_token)
        query = self._select(query)
        to_item: Callable[[Row[Any]], Any] = read or self._rows.read
        found: list[tuple[list[str], U]] = []
        more = True
        while more and len(found) <= limit:
            rows = self._fetch(query, position, limit + 1)
            items = ((_position(row), to_item(row)) for row in rows)
            found += [(place, item) for place, item in items if self._is_wanted(item) and keep(item)]
            position, more = _position(rows[-1]) if rows else [], len(rows) > limit
        token = self._make_token(found[limit - 1][0]) if len(found) > limit else ""
        return ListPage([item for _, item in found[:limit]], token)

    def _check(self, name: str, direction: str) -> None:
        """Raises InvalidArgument for a query with an unknown name, or with a text that is too long."""
        names, filters = self._names.order_by.split(), self._names.filters.split()
        violations = {}
        if self._query.order_by and (name not in names or direction not in {"", "desc"}):
            violations["query.order_by"] = (
                f"must be one of: {', '.join(sorted(names))}; with ` desc`, the largest first"
            )
        if len(self._query.search) > MAX_SEARCH_CHARS or "\0" in self._query.search:
            violations["query.search"] = f"must have at most {MAX_SEARCH_CHARS} printable characters"
        if not {*self._query.filters} <= {*filters}:
            violations["query.filters"] = f"must be some of: {', '.join(sorted(filters))}"
        if sum(map(len, self._query.filters.values())) > MAX_FILTER_CHARS or "\0" in "".join(
            self._query.filters.values()
        ):
            violations["query.filters"] = f"must have at most {MAX_FILTER_CHARS} printable characters"
        if violations:
            message = "The list does not know this query."
            raise InvalidArgument(Reason.INVALID_REQUEST, message, field_violations=violations)

    def _select(self, query: Select[Any]) -> Select[Any]:
        """The query with the search, the filters, and the texts of the position."""
        for word in self._query.search.split():
            query = query.where(self._searched().icontains(word, autoescape=True))
        for name, text in self._query.filters.items():
            if name not in self._derived:
                query = query.where(_plain(self._column(name, as_text=True)).in_(_words(text)))
        texts = (cast(value, Text).label(f"position_{place}") for place, value in enumerate(self._in_token))
        return query.add_columns(*texts)

    def _fetch(self, query: Select[Any], position: list[str], limit: int) -> list[Row[Any]]:
        """The next rows after a position, or the first ones."""
        stored = zip(position, self._in_token, strict=bool(position))
        ends: list[ColumnElement[Any]] = [cast(literal(text, Text), value.type) for text, value in stored]
        if 0 < len(ends) < len(self._order):
            known = select(self._order[0]).where(self._key == ends[0])
            ends = [known.correlate(None).scalar_subquery(), *ends]
        here, there = tuple_(*self._order), tuple_(*ends)
        after: Any = true() if not position else here < there if self._descending else here > there
        order = [value.desc() if self._descending else value for value in self._order]
        try:
            return self._rows.fetch_rows(query.where(and_(after)).order_by(*order).limit(limit))
        except DataError:
            raise invalid_token() from None

    def _is_wanted(self, item: Any) -> bool:
        chosen = ((value, self._query.filters.get(name)) for name, value in self._derived.items())
        return all(text is None or _word(str(value(item))) in _words(text) for value, text in chosen)

    def _column(self, name: str, *, as_text: bool = False) -> ColumnElement[Any]:
        if name in self._columns:
            return self._columns[name]
        if "listed" in self._rows.c:
            value = self._rows.c.listed[name]
            return value.astext if as_text else value
        return self._rows.c[name]

    def _searched(self) -> ColumnElement[str]:
        stored = [self._rows.c.searched] if "searched" in self._rows.c else []
        names = [name for name in self._names.search.split() if name in self._columns or not stored]
        return func.concat_ws(" ", *stored, *(cast(self._column(name), Text) for name in names))

    def _order_value(self, name: str) -> ColumnElement[Any]:
        value = self._column(name)
        value = cast(value, Text) if isinstance(value.type, NullType) else value
        least = next((text for kind, text in LEAST.items() if isinstance(value.type, kind)), "0")
        present = func.coalesce(value, literal_column(least), type_=value.type)
        return func.lower(present, type_=Text()) if isinstance(value.type, String) else present

    def _make_token(self, position: list[str]) -> str:
        return base64.urlsafe_b64encode(json.dumps([self._digest(), *position]).encode()).decode()

    def _read_token(self, token: str) -> list[str]:
        """The position of a token that a page of the same query had. Raises InvalidArgument (INVALID_PAGE_TOKEN)."""
        if not token:
            return []
        try:
            digest, *position = (str(text) for text in json.loads(base64.urlsafe_b64decode(token)))
        except (ValueError, TypeError, RecursionError):
            raise invalid_token() from None
        if digest != self._digest() or "\0" in "".join(position) or len(position) != len(self._in_token):
            raise invalid_token()
        return position

    def _digest(self) -> str:
        return hashlib.sha256(self._query.SerializeToString(deterministic=True)).hexdigest()[:8]


def _position(row: Row[Any]) -> list[str]:
    return [value for name, value in row._mapping.items() if name.startswith("position_")]


def _plain(value: ColumnElement[Any]) -> ColumnElement[str]:
    return func.replace(func.lower(cast(value, Text)), "_", " ")


def _words(text: str) -> set[str]:
    return {_word(item) for item in text.split(",")}


def _word(text: str) -> str:
    return text.strip().lower().replace("_", " ")
