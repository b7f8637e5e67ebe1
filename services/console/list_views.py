"""One mechanism for every list: search, filters, order and pages, which the service applies. The state is in the page's address, so that
it can be shared.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlencode

from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, Reason

T = TypeVar("T")

MAX_SEARCH_CHARS = 200
MAX_TOKEN_CHARS = 2_000
# Names in the query of an address that no filter may have.
SEARCH, ORDER, TOKEN = "q", "order_by", "token"


@dataclass(frozen=True)
class PageColumn:
    """A column of a list. The list is ordered by `order` if it knows that name."""

    title: str
    order: str = ""
    numeric: bool = False
    # Buttons explain themselves, so only screen readers need the title of their column.
    silent: bool = False


@dataclass(frozen=True)
class ListFilter:
    """A filter with (value, label) options; any text without options."""

    name: str
    title: str
    options: tuple[tuple[str, str], ...] = ()
    # False if values without an option are left to the service.
    is_closed: bool = True


@dataclass(frozen=True)
class ListSpec:
    """A list: its address, its columns, the names that it knows, and its filters. `first` describes its start without a choice of order."""

    path: str
    noun: str
    columns: tuple[PageColumn, ...]
    names: common_pb2.ListNames = field(default_factory=common_pb2.ListNames)
    choices: tuple[ListFilter, ...] = ()
    first: str = "newest"
    # Other parameters of the page, which stay in its links.
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def searched(self) -> str:
        """The searched fields."""
        return ", ".join(self.names.search.split()).replace("_", " ")

    @property
    def orders(self) -> tuple[PageColumn, ...]:
        """The columns by which the list can be ordered."""
        names = self.names.order_by.split()
        return tuple(column for column in self.columns if column.order in names)


@dataclass(frozen=True)
class ListChoice:
    """The part of a list that a visitor wants to see. `token` is the service's page token."""

    search: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    order_by: str = ""
    token: str = ""

    @property
    def descending(self) -> bool:
        return self.order_by.endswith(" desc")


@dataclass(frozen=True)
class ListView(Generic[T]):
    """A page of a list."""

    spec: ListSpec
    query: ListChoice
    items: tuple[T, ...] = ()
    next_token: str = ""

    @property
    def is_narrowed(self) -> bool:
        """True if the visitor searches, filters or orders."""
        return bool(self.query.search or self.query.filters or self.query.order_by)

    @property
    def sentence(self) -> str:
        """What is shown."""
        count = f"{len(self.items):,} {self.spec.noun}"
        if not self.query.token and not self.next_token:
            return f"{count} found" if self.is_narrowed else count
        first = "first" if self.is_narrowed else self.spec.first
        return f"The {'next' if self.query.token else first} {count}{'; more follow' if self.next_token else ''}"

    @property
    def next_url(self) -> str:
        """The next page; empty on the last one."""
        return self._url(token=self.next_token) if self.next_token else ""

    @property
    def first_url(self) -> str:
        """The first page; empty if this is it."""
        return self._url() if self.query.token else ""

    @property
    def clear_url(self) -> str:
        """The list without search, filters and order; empty if it has none."""
        if not self.is_narrowed:
            return ""
        return f"{self.spec.path}?{urlencode(self.spec.kept)}" if self.spec.kept else self.spec.path

    def order_url(self, column: PageColumn) -> str:
        """Ordered by the column; numbers and times are largest first at first, and the other way round at the second click."""
        known = self.direction(column) != "none"
        descending = not self.query.descending if known else column.numeric
        return self._url(order_by=f"{column.order} desc" if descending else column.order)

    def direction(self, column: PageColumn) -> str:
        """`ascending`, `descending`, or `none`, as `aria-sort` has it."""
        if not column.order or self.query.order_by.partition(" ")[0] != column.order:
            return "none"
        return "descending" if self.query.descending else "ascending"

    def _url(self, *, token: str = "", order_by: str | None = None) -> str:
        order = self.query.order_by if order_by is None else order_by
        values = {**self.spec.kept, SEARCH: self.query.search, **self.query.filters, ORDER: order, TOKEN: token}
        shown = {name: value for name, value in values.items() if value}
        return f"{self.spec.path}?{urlencode(shown)}" if shown else self.spec.path


def parse_query(spec: ListSpec, parameters: Mapping[str, str]) -> ListChoice:
    """Read the query of an address. Raises InvalidArgument with a violation per invalid field."""
    violations = {}
    search, order, token = (parameters.get(name, "").strip() for name in (SEARCH, ORDER, TOKEN))
    filters = {choice.name: parameters.get(choice.name, "").strip() for choice in spec.choices}
    names = {column.order for column in spec.orders}
    if len(search) > MAX_SEARCH_CHARS:
        violations[SEARCH] = f"must have at most {MAX_SEARCH_CHARS} characters"
    for choice in spec.choices:
        options = {value for value, _ in choice.options} if choice.is_closed else set()
        value = filters[choice.name]
        if len(value) > MAX_SEARCH_CHARS or (value and options and value not in options):
            violations[choice.name] = f"must be one of: {', '.join(sorted(options))}" if options else "is too long"
    if order and order.removesuffix(" desc") not in names:
        violations[ORDER] = f"must be one of: {', '.join(sorted(names))}; with ` desc`, the largest first"
    if len(token) > MAX_TOKEN_CHARS:
        violations[TOKEN] = "must be that of a link to a next page"
    if violations:
        raise InvalidArgument(Reason.INVALID_REQUEST, "The list cannot be shown so.", field_violations=violations)
    return ListChoice(search, {name: value for name, value in filters.items() if value}, order, token)
