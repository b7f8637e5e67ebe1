"""What all lists share: a page with its failure, options of filters, and the filter by specialist."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.domain import Page, Permission, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists
from services.console.listing import ListFilter, Listing, ListQuery, ListSpec, parse_query, read_list
from services.console.ports import Services
from tailor.api.common.v1 import common_pb2

T = TypeVar("T")
Options = tuple[tuple[str, str], ...]
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class ListAnswer(ServiceAnswer[Listing[T]]):
    """A page of a list, or an empty one and the failure."""


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


def to_options(enum: Any, prefix: str) -> Options:
    """The values of an enum as options, without the unspecified one."""
    names = [value.name.removeprefix(prefix) for value in enum.DESCRIPTOR.values if value.number]
    return tuple((name, name.lower().replace("_", " ")) for name in names)


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


def seconds(stamp: Timestamp) -> float:
    """A time as a number to sort by; 0 if it is not set."""
    return stamp.ToNanoseconds() / 1e9


def join_labels(labels: common_pb2.Labels) -> str:
    """The labels as one text."""
    return " ".join((labels.source, labels.department, labels.confidentiality))
