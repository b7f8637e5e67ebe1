"""One mechanism for every list: search, filters, order and paging. The state is in the page's address, so that it can be shared.

Without a search, a filter of the console's own or an order, a page of a list is a page of its service. Otherwise the console reads up to
`BATCH_ITEMS` items, works on those, and says how many it read; the next batch begins where the last one ended.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import urlencode

from services.console.domain import Page
from tailor.errors import InvalidArgument, Reason

T = TypeVar("T")

BATCH_ITEMS = 1_000
MAX_BATCH_PAGES = 20
SHOWN_ITEMS = 100
MAX_SEARCH_CHARS = 200
MAX_TOKEN_CHARS = 1_000
# Names in the query of an address that no filter may have.
SEARCH, SORT, TOKEN, OFFSET = "q", "sort", "token", "from"


@dataclass(frozen=True)
class PageColumn(Generic[T]):
    """A column of a list. Without a key, the list cannot be sorted by it."""

    title: str
    name: str = ""
    key: Callable[[T], str | float] | None = None
    numeric: bool = False
    # Buttons explain themselves, so only screen readers need the title of their column.
    silent: bool = False


@dataclass(frozen=True)
class ListFilter(Generic[T]):
    """A filter with (value, label) options; any text without options. Without `value`, the service applies it."""

    name: str
    title: str
    options: tuple[tuple[str, str], ...] = ()
    value: Callable[[T], str] | None = None
    # False if values without an option are left to the service.
    is_closed: bool = True


@dataclass(frozen=True)
class ListSpec(Generic[T]):
    """A list: its address, its order without a choice, and what can be searched, chosen and sorted.

    `searched` names the searched fields for people. `further` names what follows what was read, such as `older ones`.
    """

    path: str
    noun: str
    columns: tuple[PageColumn[T], ...]
    text: Callable[[T], str]
    searched: str
    choices: tuple[ListFilter[T], ...] = ()
    first: str = "newest"
    further: str = "older ones"
    # Other parameters of the page, which stay in its links.
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ListQuery:
    """The part of a list that a visitor wants to see.

    `token` is the service's page token, `offset` counts matches in the batch that it begins.
    """

    search: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""
    token: str = ""
    offset: int = 0

    @property
    def sorted_by(self) -> str:
        """The column's name."""
        return self.sort.removeprefix("-")

    @property
    def descending(self) -> bool:
        return self.sort.startswith("-")


@dataclass(frozen=True)
class Listing(Generic[T]):
    """A page of a list. `read` items were read for it, and `matches` of them are what the visitor wants to see."""

    spec: ListSpec[T]
    query: ListQuery
    items: tuple[T, ...] = ()
    matches: int = 0
    read: int = 0
    next_token: str = ""
    # True if the console searched or sorted, so that it matters how many items were read.
    worked: bool = False

    @property
    def is_narrowed(self) -> bool:
        """True if the visitor searches, filters or sorts."""
        return bool(self.query.search or self.query.filters or self.query.sort)

    @property
    def sentence(self) -> str:
        """What is shown, and what was not read for it."""
        noun = self.spec.noun
        if not self.worked:
            if not self.query.token and not self.next_token:
                return f"{self.matches:,} {noun}"
            rest = f"; {self.spec.further} follow" if self.next_token else ""
            start = f"The {self.spec.first} {self.matches:,}" if not self.query.token else f"The next {self.matches:,}"
            return f"{start} {noun}{rest}"
        last = min(self.query.offset + SHOWN_ITEMS, self.matches)
        shown = f"{self.query.offset + 1:,} to {last:,} of " if self.matches > SHOWN_ITEMS and last else ""
        if not self.query.token and not self.next_token:
            return f"{shown}{self.matches:,} found among all {self.read:,} {noun}"
        where = f"the {self.spec.first} {self.read:,}" if not self.query.token else f"the next {self.read:,}"
        rest = f"; {self.spec.further} were not searched" if self.next_token else ""
        return f"{shown}{self.matches:,} found among {where} {noun}{rest}"

    @property
    def next_url(self) -> str:
        """The next page: of what was found, then of what was not read yet. Empty on the last one."""
        offset = self.query.offset + SHOWN_ITEMS
        if self.worked and offset < self.matches:
            return self._url(token=self.query.token, offset=offset)
        return self._url(token=self.next_token) if self.next_token else ""

    @property
    def next_label(self) -> str:
        within = self.query.offset + SHOWN_ITEMS < self.matches
        return f"Search {self.spec.further}" if self.worked and not within else "Next page"

    @property
    def first_url(self) -> str:
        """The first page; empty if this is it."""
        return self._url() if self.query.token or self.query.offset else ""

    @property
    def clear_url(self) -> str:
        """The list without search, filters and order; empty if it has none."""
        if not self.is_narrowed:
            return ""
        return f"{self.spec.path}?{urlencode(self.spec.kept)}" if self.spec.kept else self.spec.path

    def sort_url(self, column: PageColumn[T]) -> str:
        """Sorted by the column; numbers and times are largest first at first, and the other way round at the second click."""
        descending = not self.query.descending if self.query.sorted_by == column.name else column.numeric
        return self._url(sort=f"-{column.name}" if descending else column.name)

    def direction(self, column: PageColumn[T]) -> str:
        """`ascending`, `descending`, or `none`, as `aria-sort` has it."""
        if not column.name or self.query.sorted_by != column.name:
            return "none"
        return "descending" if self.query.descending else "ascending"

    def _url(self, *, token: str = "", offset: int = 0, sort: str | None = None) -> str:
        order = self.query.sort if sort is None else sort
        values = {**self.spec.kept, SEARCH: self.query.search, **self.query.filters, SORT: order, TOKEN: token}
        shown = {name: value for name, value in values.items() if value} | ({OFFSET: str(offset)} if offset else {})
        return f"{self.spec.path}?{urlencode(shown)}" if shown else self.spec.path


def parse_query(spec: ListSpec[T], parameters: Mapping[str, str]) -> ListQuery:
    """Read the query of an address. Raises InvalidArgument with a violation per invalid field."""
    violations = {}
    search, sort, token = (parameters.get(name, "").strip() for name in (SEARCH, SORT, TOKEN))
    filters = {choice.name: parameters.get(choice.name, "").strip() for choice in spec.choices}
    names = {column.name for column in spec.columns if column.name}
    if len(search) > MAX_SEARCH_CHARS:
        violations[SEARCH] = f"must have at most {MAX_SEARCH_CHARS} characters"
    for choice in spec.choices:
        options = {value for value, _ in choice.options} if choice.is_closed else set()
        value = filters[choice.name]
        if len(value) > MAX_SEARCH_CHARS or (value and options and value not in options):
            violations[choice.name] = f"must be one of: {', '.join(sorted(options))}" if options else "is too long"
    if sort and sort.removeprefix("-") not in names:
        violations[SORT] = f"must be one of: {', '.join(sorted(names))}; with `-` in front, the largest first"
    if len(token) > MAX_TOKEN_CHARS:
        violations[TOKEN] = "must be that of a link to a next page"
    offset = parameters.get(OFFSET, "0")
    if not (offset.isascii() and offset.isdigit() and int(offset[:9]) <= BATCH_ITEMS * MAX_BATCH_PAGES):
        violations[OFFSET] = "must be that of a link to a next page"
    if violations:
        raise InvalidArgument(Reason.INVALID_REQUEST, "The list cannot be shown so.", field_violations=violations)
    return ListQuery(search, {name: value for name, value in filters.items() if value}, sort, token, int(offset))


def read_list(
    spec: ListSpec[T], query: ListQuery, list_page: Callable[[str], Page[T]], may_see: Callable[[T], bool]
) -> Listing[T]:
    """The visitor's page of a list. Raises what `list_page` raises."""
    active = [choice for choice in spec.choices if choice.value and choice.name in query.filters]
    if not (query.search or query.sort or active):
        page = list_page(query.token)
        visible = tuple(item for item in page.items if may_see(item))
        return Listing(spec, query, visible, len(visible), len(visible), page.next_token)
    batch = _read_batch(list_page, query.token)
    visible = tuple(item for item in batch.items if may_see(item))
    wanted = [item for item in visible if _matches(item, spec, query, active)]
    column = next((column for column in spec.columns if column.name and column.name == query.sorted_by), None)
    if column and column.key:
        wanted.sort(key=_order_by(column.key), reverse=query.descending)
    shown = tuple(wanted[query.offset : query.offset + SHOWN_ITEMS])
    return Listing(spec, query, shown, len(wanted), len(visible), batch.next_token, worked=True)


def _read_batch(list_page: Callable[[str], Page[T]], token: str) -> Page[T]:
    items: list[T] = []
    for _ in range(MAX_BATCH_PAGES):
        page = list_page(token)
        items += page.items
        token = page.next_token
        if not token or len(items) >= BATCH_ITEMS:
            break
    return Page(tuple(items), token)


def _matches(item: T, spec: ListSpec[T], query: ListQuery, active: list[ListFilter[T]]) -> bool:
    """True if the item has the chosen values, and every word of the search is somewhere in its text."""
    if any(choice.value and choice.value(item) != query.filters[choice.name] for choice in active):
        return False
    if not query.search:
        return True
    text = spec.text(item).casefold()
    return all(word in text for word in query.search.casefold().split())


def _order_by(key: Callable[[T], str | float]) -> Callable[[T], str | float]:
    def order(item: T) -> str | float:
        value = key(item)
        return value.casefold() if isinstance(value, str) else value

    return order
