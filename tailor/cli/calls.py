"""Calls to services: a deadline for each, failures as TailorErrors, all pages as one iterator, digests by their first digits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import grpc
from google.protobuf.message import Message

from tailor.api.common.v1 import common_pb2
from tailor.api.inference.v1 import inference_pb2
from tailor.api.registry.v1 import registry_pb2, registry_pb2_grpc
from tailor.errors import PermissionDenied, Reason
from tailor.rpc.methods import all_methods
from tailor.rpc.status import wire_errors

TIMEOUT_SECONDS = 20.0
# Anonymization processes a reason before it is stored.
REASON_SECONDS = 60.0
DIGEST_LENGTH = 64
# The service that callers' own client calls.
CALLERS_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
DATA_PROTECTION = "data-protection"


class Calls(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
):
    """Raises a failed call as the TailorError of its service. A call without a stream ends after 20 seconds, or its own timeout."""

    def __init__(self, service: str) -> None:
        self._service = service

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details = client_call_details
        if details.timeout is None:
            details = details._replace(timeout=TIMEOUT_SECONDS)
        return self._finish(continuation, details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._finish(continuation, client_call_details, request_iterator)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._read(continuation(client_call_details, request), client_call_details.method)

    def _finish(self, continuation: Any, details: Any, request: Any) -> Any:
        with calling(self._service, details.method):
            outcome = continuation(details, request)
            outcome.result()
            return outcome

    def _read(self, call: Any, method: str) -> Iterator[Any]:
        try:
            with calling(self._service, method):
                yield from call
        finally:
            call.cancel()


@contextmanager
def calling(service: str, method: str) -> Iterator[None]:
    """Turn a failed call into a TailorError. If the key's role may not call the method, the error names the roles that may.

    `method` ends with the method's name, such as `/tailor.api.registry.v1.RegistryService/GetFlow`.
    """
    try:
        with wire_errors(service):
            yield
    except PermissionDenied as error:
        if error.reason == Reason.ROLE_NOT_ADMITTED:
            raise PermissionDenied(Reason.ROLE_NOT_ADMITTED, _missing_role(method) or error.message) from None
        raise


def pages(call: Callable[..., Any], request: Any) -> Iterator[Any]:
    """Yield the items of all pages; each page is fetched when it is needed. Changes the request's page token."""
    while True:
        response = call(request)
        yield from getattr(response, list_field(response.DESCRIPTOR))
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def list_field(response: Any) -> str:
    """The name of the only repeated field of a response, by its descriptor."""
    (name,) = (field.name for field in response.fields if field.is_repeated)
    return str(name)


def name_items(request: Message) -> str:
    """The name of the items that a request lists, such as `runs`."""
    return next(
        list_field(method.output_type)
        for method in all_methods()
        if method.input_type.full_name == request.DESCRIPTOR.full_name
    )


def first(limit: int, items: Iterator[Any]) -> list[Any]:
    """The first `limit` items, or fewer."""
    return list(islice(items, limit))


def list_adapters(
    registry: registry_pb2_grpc.RegistryServiceStub, specialist: str = ""
) -> Iterator[registry_pb2.CatalogueAdapter]:
    """Yield adapters, newest first."""
    request = registry_pb2.ListAdaptersRequest(specialist=specialist)
    return pages(registry.ListAdapters, request)


def adapter_digest(registry: registry_pb2_grpc.RegistryServiceStub, digits: str) -> str:
    """The whole digest of the adapter whose digest begins with `digits`, at least 6 of them. The registry refuses ambiguous digits."""
    if len(digits) == DIGEST_LENGTH:
        return digits
    request = registry_pb2.GetAdapterRequest(digest=digits)
    return registry.GetAdapter(request).adapter.adapter.digest


def dataset_digest(registry: registry_pb2_grpc.RegistryServiceStub, digits: str) -> str:
    """The whole digest of the dataset whose digest begins with `digits`, at least 6 of them. The registry refuses ambiguous digits."""
    if len(digits) == DIGEST_LENGTH:
        return digits
    return registry.GetDataset(registry_pb2.GetDatasetRequest(digest=digits)).dataset.digest


def _missing_role(name: str) -> str:
    """Which roles may call a method, and how to get a key of one; empty if no role may."""
    service, _, method_name = name.strip("/").rpartition("/")
    for method in all_methods():
        access = method.GetOptions().Extensions[common_pb2.access]
        if method.name == method_name and method.containing_service.full_name == service and access.roles:
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
