"""The Flow page: what the installation took in, and how far one specialist is."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from services.console.clients import Services
from services.console.domain import Page, Permission, Visitor
from services.console.handlers import (
    SERVICES,
    ServiceAnswer,
    ServiceFailure,
    call,
    list_specialists,
)
from services.console.reads import read_page
from tailor.api.events.v1.models_pb2 import DatasetBuilt
from tailor.api.registry.v1 import registry_pb2
from tailor.api.registry.v1.registry_pb2 import CatalogueAdapter, GetFlowRequest, GetFlowResponse, GetSpecialistResponse
from tailor.api.training.v1 import training_pb2
from tailor.api.training.v1.training_pb2 import Run
from tailor.errors import NotFound, Reason, TailorError

T = TypeVar("T")


@dataclass(frozen=True)
class Overview:
    """The flow at work: the later stages are those of one specialist, `entry`. `names` has all that the visitor may choose."""

    names: tuple[str, ...]
    entry: GetSpecialistResponse | None
    flow: GetFlowResponse
    datasets: Page[DatasetBuilt]
    runs: Page[Run]
    adapters: Page[CatalogueAdapter]
    healthy: dict[str, bool]
    failures: tuple[ServiceFailure, ...]


def load_overview(services: Services, visitor: Visitor, specialist: str = "") -> Overview:
    """Everything on the Flow page, of the given specialist or of the first by name. The services are called in parallel.

    Visitors who may not see runs get no specialist. Raises NotFound for one that is unknown or not visible to the visitor.
    """
    known = _list_choices(services, visitor)
    entry = next((item for item in known.value if specialist in ("", item.specialist.name)), None)
    if specialist and entry is None and not known.failure:
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or you may not use it.")
    name = entry.specialist.name if entry else ""
    with ThreadPoolExecutor(max_workers=11, thread_name_prefix="overview") as pool:
        healthy = {service: pool.submit(_is_healthy, services, service) for service in SERVICES}
        flow = pool.submit(call, "registry", lambda: services.registry.GetFlow(GetFlowRequest()), GetFlowResponse())
        datasets = pool.submit(
            _read,
            name,
            "registry",
            lambda: read_page(services.registry.ListDatasets, registry_pb2.ListDatasetsRequest(specialist=name)),
        )
        runs = pool.submit(
            _read,
            name,
            "training",
            lambda: read_page(services.training.ListRuns, training_pb2.ListRunsRequest(specialist=name)),
        )
        adapters = pool.submit(
            _read,
            name,
            "registry",
            lambda: read_page(services.registry.ListAdapters, registry_pb2.ListAdaptersRequest(specialist=name)),
        )
    answers = (known, flow.result(), datasets.result(), runs.result(), adapters.result())
    return Overview(
        names=tuple(item.specialist.name for item in known.value),
        entry=entry,
        flow=flow.result().value,
        datasets=datasets.result().value,
        runs=runs.result().value,
        adapters=adapters.result().value,
        healthy={service: future.result() for service, future in healthy.items()},
        failures=tuple(dict.fromkeys(failure for answer in answers for failure in answer.failures)),
    )


def _is_healthy(services: Services, service: str) -> bool:
    """True if the service answers and serves."""
    try:
        return bool(services.health[service].Check(HealthCheckRequest()).status == HealthCheckResponse.SERVING)
    except TailorError:
        return False


def _list_choices(services: Services, visitor: Visitor) -> ServiceAnswer[tuple[GetSpecialistResponse, ...]]:
    if not visitor.may(Permission.RUNS):
        return ServiceAnswer(())
    return list_specialists(services, visitor)


def _read(name: str, service: str, ask: Callable[[], Page[T]]) -> ServiceAnswer[Page[T]]:
    """A list of the specialist from a service; an empty one without a specialist."""
    return call(service, ask, Page[T]()) if name else ServiceAnswer(Page[T]())
