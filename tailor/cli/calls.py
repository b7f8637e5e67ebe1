"""Calling services: errors as TailorError, pages as one list, digests by their first digits."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.message import Message

from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.status import wire_errors

T = TypeVar("T")

TIMEOUT_SECONDS = 20.0
DIGEST_LENGTH = 64


def unary(service: str, call: Callable[..., T], request: Message, timeout_seconds: float = TIMEOUT_SECONDS) -> T:
    """The answer to one call; the TailorError that the service gave."""
    with wire_errors(service):
        return call(request, timeout=timeout_seconds)


def pages(service: str, call: Callable[..., Any], request: Any, items: str) -> Iterator[Any]:
    """The items of all pages, fetched as they are wanted. The request is changed on the way."""
    while True:
        response = unary(service, call, request)
        yield from getattr(response, items)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def first(limit: int, found: Iterator[Any]) -> list[Any]:
    """At most `limit` of what is found."""
    return list(islice(found, limit))


def list_adapters(
    registry: registry_pb2_grpc.RegistryServiceStub, specialist: str = ""
) -> Iterator[registry_pb2.CatalogueAdapter]:
    """Adapters, newest first."""
    request = registry_pb2.ListAdaptersRequest(specialist=specialist)
    return pages("registry", registry.ListAdapters, request, "adapters")


def adapter_digest(registry: registry_pb2_grpc.RegistryServiceStub, text: str, specialist: str = "") -> str:
    """The digest that begins with the text; NotFound for none, InvalidArgument for several."""
    if len(text) == DIGEST_LENGTH:
        return text
    known = {item.adapter.digest for item in list_adapters(registry, specialist)}
    found = sorted(digest for digest in known if digest.startswith(text))
    if not found:
        raise NotFound(Reason.UNKNOWN_ADAPTER, f"No adapter's digest begins with {text}; see `tailor adapters`.")
    if len(found) > 1:
        raise InvalidArgument(Reason.AMBIGUOUS_ADAPTER, f"{len(found)} adapters begin with {text}; give more digits.")
    return found[0]
