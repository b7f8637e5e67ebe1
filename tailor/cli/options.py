"""Arguments and options that several commands have."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tailor.api.common.v1.common_pb2 import ListQuery
from tailor.columns import list_names
from tailor.errors import InvalidArgument
from tailor.errors import Reason as Refusal

SpecialistName = Annotated[str, typer.Argument(metavar="SPECIALIST", help="The specialist's name.")]
AdapterName = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="The adapter's digest, or at least its first 6 digits.")
]
Limit = Annotated[int, typer.Option(min=1, help="Max items to list.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why. Stays on record, without personal data.")]
Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in UTC; the current one by default.")]
Generation = Annotated[
    int | None,
    typer.Option(
        "--expected-generation", min=0, help="Fail unless this generation serves; by default, the current one."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every ready replica serves the change.")]


def listed(command: Callable[..., None]) -> Callable[..., None]:
    """A command that gets the request of a list: adds --search, --order-by and --filter to it, and --specialist if it has one."""
    context, asked, *options = inspect.signature(command).parameters.values()
    request, names = asked.annotation, list_names(asked.annotation)
    described: dict[str, tuple[Any, Any, str]] = {
        "search": (str, "", f"Only those with all these words in: {_join(names.search)}."),
        "order_by": (str, "", f"A name, or `NAME desc` for the largest first, of: {_join(names.order_by)}."),
    }
    if names.filters:
        described["filter"] = (
            list[str] | None,
            None,
            f"NAME=VALUE, which may be repeated, of: {_join(names.filters)}.",
        )
    if "specialist" in request.DESCRIPTOR.fields_by_name and not any(item.name == "specialist" for item in options):
        described["specialist"] = (str, "", "Only those of this specialist.")
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, typer.Option(help=text)]
        )
        for name, (kind, default, text) in described.items()
    ]

    @functools.wraps(command)
    def run(session: Any, **given: Any) -> None:
        values = {name: given.pop(name) for name in described}
        query = _to_query(values.pop("search"), values.pop("order_by"), values.pop("filter", None) or [])
        command(session, request(query=query, **values), **given)

    run.__signature__ = inspect.Signature([context, *options, *added])  # type: ignore[attr-defined]
    return run


def _join(names: str) -> str:
    return ", ".join(names.split())


def _to_query(search: str, order_by: str, filters: list[str]) -> ListQuery:
    pairs = [text.partition("=") for text in filters]
    if not all(mark for _, mark, _ in pairs):
        raise InvalidArgument(Refusal.INVALID_ARGUMENT, "--filter must be NAME=VALUE, such as `--filter state=failed`.")
    return ListQuery(search=search, order_by=order_by, filters={name: value for name, _, value in pairs})
