"""What all lists share: a page with its failure, columns and filters by the fields of messages, and the filter by specialist."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from services.console.clients import Services
from services.console.domain import Permission, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists
from services.console.list_views import ListFilter, ListSpec, ListView, PageColumn, parse_query
from services.console.reads import read_page
from tailor.columns import Columns, find_field, list_names, read

T = TypeVar("T")
Options = tuple[tuple[str, str], ...]
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class ListAnswer(ServiceAnswer[ListView[T]]):
    """A page of a list, or an empty one and the failure."""


def to_columns(known: Columns, *specifications: str | PageColumn) -> tuple[PageColumn, ...]:
    """The columns of a page by their names, with commas between them. Those that are known have a small letter. Others only have a title,
    and one in parentheses is for screen readers. Raises KeyError for an unknown one.
    """
    by_name = {column.name: column for column in known}

    def find(name: str) -> PageColumn:
        if name[0].isupper():
            return PageColumn(name)
        if name.startswith("("):
            return PageColumn(name.strip("()"), silent=True)
        column = by_name[name]
        title = f"{name[0].upper()}{name[1:]}{' (UTC)' if column.is_time else ''}"
        return PageColumn(title, column.order, numeric=column.is_number)

    items = (item.split(", ") if isinstance(item, str) else [item] for item in specifications)
    return tuple(find(item) if isinstance(item, str) else item for part in items for item in part)


def read_messages(
    spec: ListSpec,
    parameters: Parameters,
    method: Callable[[Any], Any],
    request: Any,
    may_see: Callable[[T], bool] = lambda item: True,
) -> ListAnswer[T]:
    """The page of a list that the address asks for. A filter that the list does not know is a field of the request.

    Raises InvalidArgument for an invalid address.
    """
    spec = replace(spec, names=list_names(type(request)))
    query, known = parse_query(spec, parameters), spec.names.filters.split()
    chosen = {name: value for name, value in query.filters.items() if name in known}
    for name, value in chosen.items():
        request.query.filters[name] = value
    request.query.search, request.query.order_by = query.search, query.order_by
    request.page_token = query.token

    def read_list() -> ListView[T]:
        page = read_page(method, request)
        return ListView(spec, query, tuple(filter(may_see, page.items)), page.next_token)

    service = str(request.DESCRIPTOR.full_name.split(".")[2])
    answer = call(service, read_list, ListView[T](spec, query))
    return ListAnswer(answer.value, answer.failure)


def read_of_specialists(  # noqa: PLR0917 - who asks, for what, of whom
    services: Services,
    visitor: Visitor,
    spec: ListSpec,
    parameters: Parameters,
    method: Callable[[Any], Any],
    request: Any,
    path: str = "specialist",
) -> ListAnswer[Any]:
    """The same for items of the visitor's specialists, which are at a path, with the filter by specialist.

    Raises NotFound for one that is not visible to them.
    """
    name = parameters.get("specialist", "").strip()
    if name:
        visitor.require_specialist(name)
    elif visitor.specialists:
        request.query.filters["specialist"] = ",".join(sorted(visitor.specialists))
    spec = replace(spec, choices=(*by_specialist(services, visitor), *spec.choices))
    return read_messages(spec, parameters, method, request, lambda item: visitor.may_use(str(read(item, path))))


def by_enum(message: type[Message], path: str, title: str = "") -> ListFilter:
    """The filter by an enum's values, without the unspecified one."""
    enum: Any = find_field(message.DESCRIPTOR, path).enum_type
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = [value.name.removeprefix(prefix) for value in enum.values if value.number]
    options = tuple((item, item.lower().replace("_", " ")) for item in names)
    name = path.rpartition(".")[2]
    return ListFilter(name, title or name.capitalize(), options)


def to_plain_options(values: Iterable[str]) -> Options:
    """Options that are shown as they are."""
    return tuple((value, value) for value in values)


def by_specialist(services: Services, visitor: Visitor) -> tuple[ListFilter, ...]:
    """The filter by specialist. Visitors who may not see specialists do not get their names."""
    if not visitor.may(Permission.SPECIALISTS):
        return ()
    names = [item.specialist.name for item in list_specialists(services, visitor).value]
    return (ListFilter("specialist", "Specialist", to_plain_options(names), is_closed=False),)
