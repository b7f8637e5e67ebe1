"""Calls to services: failures as TailorErrors, all pages as one iterator, digests by their first digits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.message import Message

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import PermissionDenied, Reason
from tailor.rpc.methods import all_methods
from tailor.rpc.status import wire_errors

T = TypeVar("T")

TIMEOUT_SECONDS = 20.0
# Anonymization processes a reason before it is stored.
REASON_SECONDS = 60.0
DIGEST_LENGTH = 64
DATA_PROTECTION = "data-protection"


def unary(service: str, call: Callable[..., T], request: Message, timeout_seconds: float = TIMEOUT_SECONDS) -> T:
    """Call a method and return its response. Raises the service's TailorError."""
    with calling(service, request.DESCRIPTOR.full_name):
        return call(request, timeout=timeout_seconds)


@contextmanager
def calling(service: str, request_type: str) -> Iterator[None]:
    """Turn a failed call into a TailorError. If the key's role may not call the method, the error names the roles that may.

    `request_type` is the full name of the request message, by which the method is found.
    """
    try:
        with wire_errors(service):
            yield
    except PermissionDenied as error:
        if error.reason == Reason.ROLE_NOT_ADMITTED:
            raise PermissionDenied(Reason.ROLE_NOT_ADMITTED, _missing_role(request_type) or error.message) from None
        raise


def pages(service: str, call: Callable[..., Any], request: Any, items: str) -> Iterator[Any]:
    """Yield the items of all pages; each page is fetched when it is needed. Changes the request's page token."""
    while True:
        response = unary(service, call, request)
        yield from getattr(response, items)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def first(limit: int, items: Iterator[Any]) -> list[Any]:
    """The first `limit` items, or fewer."""
    return list(islice(items, limit))


def list_adapters(
    registry: registry_pb2_grpc.RegistryServiceStub, specialist: str = ""
) -> Iterator[registry_pb2.CatalogueAdapter]:
    """Yield adapters, newest first."""
    request = registry_pb2.ListAdaptersRequest(specialist=specialist)
    return pages("registry", registry.ListAdapters, request, "adapters")


def adapter_digest(registry: registry_pb2_grpc.RegistryServiceStub, digits: str) -> str:
    """The whole digest of the adapter whose digest begins with `digits`, at least 6 of them. The registry refuses ambiguous digits."""
    if len(digits) == DIGEST_LENGTH:
        return digits
    request = registry_pb2.GetAdapterRequest(digest=digits)
    return unary("registry", registry.GetAdapter, request).adapter.adapter.digest


def dataset_digest(registry: registry_pb2_grpc.RegistryServiceStub, digits: str) -> str:
    """The whole digest of the dataset whose digest begins with `digits`, at least 6 of them. The registry refuses ambiguous digits."""
    if len(digits) == DIGEST_LENGTH:
        return digits
    return unary("registry", registry.GetDataset, registry_pb2.GetDatasetRequest(digest=digits)).dataset.digest


def _missing_role(request_type: str) -> str:
    """Which roles may send this request, and how to get a key of one; empty if no role may."""
    for method in all_methods():
        access = method.GetOptions().Extensions[common_pb2.access]
        if method.input_type.full_name == request_type and access.roles:
            roles = [
                common_pb2.Role.Name(role).removeprefix("ROLE_").lower().replace("_", "-") for role in access.roles
            ]
            return f"{method.name} needs a key with the role {' or '.join(roles)}. {_way_to_key(roles)}"
    return ""


def _way_to_key(roles: list[str]) -> str:
    """How to get a key of one of the roles. Operators give every role but data protection."""
    given = next((role for role in roles if role != DATA_PROTECTION), None)
    if given is None:
        return (
            "Only data protection gives that role. Pass the installation's first such key as --api-key: it is in `protection.key`, next to "
            "`operator.key`. With it, `tailor key create NAME --role data-protection` makes a key for each further person."
        )
    return (
        f"An operator creates one with `tailor key create NAME --role {given}`; pass it as --api-key or TAILOR_API_KEY."
    )
