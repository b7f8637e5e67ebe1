"""What all lists share: a page with its failure, columns and filters by the fields of messages, and the filter by specialist."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from google.protobuf.message import Message

from services.console.domain import Page, Permission, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists
from services.console.listing import ListFilter, Listing, ListQuery, ListSpec, PageColumn, parse_query, read_list
from services.console.ports import Services
from services.console.reads import LIST_SIZE
from tailor.columns import Columns, find_field, read

T = TypeVar("T")
Options = tuple[tuple[str, str], ...]
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class ListAnswer(ServiceAnswer[Listing[T]]):
    """A page of a list, or an empty one and the failure."""


def to_columns(known: Columns, *specifications: str | PageColumn[Any]) -> tuple[PageColumn[Any], ...]:
    """The columns of a page by their names, with commas between them. Lists are sorted by those that are known, which have a small letter.
    Others only have a title, and one in parentheses is for screen readers. Raises KeyError for an unknown one.
    """
    by_name = {column.name: column for column in known}

    def find(name: str) -> PageColumn[Any]:
        if name[0].isupper():
            return PageColumn(name)
        if name.startswith("("):
            return PageColumn(name.strip("()"), silent=True)
        column = by_name[name]
        title = f"{name[0].upper()}{name[1:]}{' (UTC)' if column.is_time else ''}"
        return PageColumn(title, re.sub("[^a-z0-9]+", "-", name.lower()), column.key, numeric=column.is_number)

    items = (item.split(", ") if isinstance(item, str) else [item] for item in specifications)
    return tuple(find(item) if isinstance(item, str) else item for part in items for item in part)


def read_spec(
    spec: ListSpec[T],
    parameters: Parameters,
    service: str,
    list_page: Callable[[str, ListQuery], Page[T]],
    may_see: Callable[[T], bool] = lambda item: True,
) -> ListAnswer[T]:
    """The page of a list that the address asks for. Raises InvalidArgument for an invalid one."""
    query = parse_query(spec, parameters)
    answer = call(
        service, lambda: read_list(spec, query, lambda token: list_page(token, query), may_see), Listing(spec, query)
    )
    return ListAnswer(answer.value, answer.failure)


def read_messages(
    spec: ListSpec[T],
    parameters: Parameters,
    method: Callable[[Any], Any],
    request: Any,
    may_see: Callable[[T], bool] = lambda item: True,
) -> ListAnswer[T]:
    """The page of a list that a service's method lists."""
    return read_spec(spec, parameters, _name_service(request), _list_pages(method, request), may_see)


def read_of_specialists(  # noqa: PLR0917 - who asks, for what, of whom
    services: Services,
    visitor: Visitor,
    spec: ListSpec[T],
    parameters: Parameters,
    method: Callable[[Any], Any],
    request: Any,
) -> ListAnswer[T]:
    """The same for items of the visitor's specialists, which the column `specialist` names, with the filter by specialist."""
    spec = replace(spec, choices=(*by_specialist(services, visitor), *spec.choices))
    key = next(column.key for column in spec.columns if column.name == "specialist")
    list_page = _list_pages(method, request)

    def list_chosen(token: str, query: ListQuery) -> Page[T]:
        request.specialist = chosen_specialist(visitor, query)
        return list_page(token, query)

    def may_see(item: T) -> bool:
        return key is not None and visitor.may_use(str(key(item)))

    return read_spec(spec, parameters, _name_service(request), list_chosen, may_see)


def _name_service(request: Any) -> str:
    return str(request.DESCRIPTOR.full_name.split(".")[2])


def _list_pages(method: Callable[[Any], Any], request: Any) -> Callable[[str, ListQuery], Page[Any]]:
    request.page_size = request.page_size or LIST_SIZE

    def list_page(token: str, query: ListQuery) -> Page[Any]:
        request.page_token = token
        response = method(request)
        (items,) = (field.name for field in response.DESCRIPTOR.fields if field.is_repeated)
        return Page(tuple(getattr(response, items)), response.next_page_token)

    return list_page


def by_enum(message: type[Message], path: str, name: str = "", title: str = "") -> ListFilter[Any]:
    """The filter by an enum's values, without the unspecified one."""
    enum: Any = find_field(message.DESCRIPTOR, path).enum_type
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = [value.name.removeprefix(prefix) for value in enum.values if value.number]
    options = tuple((item, item.lower().replace("_", " ")) for item in names)
    name = name or path.rpartition(".")[2]
    return ListFilter(
        name, title or name.capitalize(), options, lambda item: str(read(item, path)).upper().replace(" ", "_")
    )


def to_plain_options(values: Iterable[str]) -> Options:
    """Options that are shown as they are."""
    return tuple((value, value) for value in values)


def by_specialist(services: Services, visitor: Visitor) -> tuple[ListFilter[Any], ...]:
    """The filter by specialist, which the services apply. Visitors who may not see specialists do not get their names."""
    if not visitor.may(Permission.SPECIALISTS):
        return ()
    names = [item.specialist.name for item in list_specialists(services, visitor).value]
    return (ListFilter("specialist", "Specialist", to_plain_options(names), is_closed=False),)


def chosen_specialist(visitor: Visitor, query: ListQuery) -> str:
    """The specialist of the filter; empty for all. Raises NotFound for one that is not visible to the visitor."""
    name = query.filters.get("specialist", "")
    if name:
        visitor.require_specialist(name)
    return name
