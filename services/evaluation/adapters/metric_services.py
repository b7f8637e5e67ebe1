"""Asks the metric services of the company (`MetricService.Measure`) over gRPC, within limits of time and size."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from services.evaluation.domain import AnsweredRow
from services.evaluation.ports import MetricServices
from services.evaluation.settings import Settings
from tailor.api.evaluation.v1 import metric_pb2, metric_pb2_grpc
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.retry import retry

ATTEMPTS = 5
MAX_ROWS = 64
MAX_REQUEST_BYTES = 4 * 1024 * 1024
# A value and a weight for each row need no more.
MAX_RESPONSE_BYTES = 64 * 1024
OPTIONS = [("grpc.max_receive_message_length", MAX_RESPONSE_BYTES), ("grpc.max_send_message_length", MAX_REQUEST_BYTES)]
RETRYABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
    }
)

Value = tuple[float, float] | None


@dataclass(frozen=True)
class ServiceAddress:
    """Where a metric service listens. Without `tls` the connection is in plain text; `ca_file` replaces gRPC's own roots.

    `token` is sent as `authorization: Bearer TOKEN`, over TLS only.
    """

    address: str
    tls: bool = True
    ca_file: Path | None = None
    token: str = ""
    timeout_seconds: float = 60.0


class RemoteMetricServices(MetricServices):
    """Opens a channel to a service at its first use. The addresses come from the settings only, never from a specialist."""

    def __init__(self, services: Mapping[str, ServiceAddress]) -> None:
        self._services = dict(services)
        self._channels = {name: _open(service) for name, service in self._services.items()}

    def measure(
        self, service: str, metric: str, parameters: Mapping[str, Any], rows: Sequence[AnsweredRow]
    ) -> list[Value]:
        if service not in self._services:
            raise FailedPrecondition(
                Reason.UNKNOWN_METRIC_SERVICE,
                "The metric names a service that TAILOR_METRIC_SERVICES of evaluation does not have.",
            )
        values: list[Value] = []
        for batch in _batches([_to_message(row) for row in rows]):
            values += retry(
                lambda batch=batch: self._measure(service, metric, parameters, batch),  # type: ignore[misc]
                attempts=ATTEMPTS,
                initial_seconds=0.5,
                max_seconds=10.0,
            )
        return values

    def _measure(
        self, name: str, metric: str, parameters: Mapping[str, Any], rows: Sequence[metric_pb2.MeasureRow]
    ) -> list[Value]:
        request = metric_pb2.MeasureRequest(metric=metric, parameters_json=json.dumps(dict(parameters), sort_keys=True))
        for position, row in enumerate(rows):
            row.position = position
            request.rows.append(row)
        service = self._services[name]
        metadata = (("authorization", f"Bearer {service.token}"),) if service.token and service.tls else ()
        with _errors():
            stub = metric_pb2_grpc.MetricServiceStub(self._channels[name])
            response = stub.Measure(request, timeout=service.timeout_seconds, metadata=metadata)
        return _to_values(response, len(rows))


def open_metric_services(settings: Settings) -> RemoteMetricServices:
    """The services that the settings name."""
    return RemoteMetricServices(
        {
            name: ServiceAddress(
                service.address, service.tls, service.ca_file, service.token.get_secret_value(), service.timeout_seconds
            )
            for name, service in settings.metric_services.items()
        }
    )


def _open(service: ServiceAddress) -> grpc.Channel:
    if not service.tls:
        return grpc.insecure_channel(service.address, OPTIONS)
    ca = service.ca_file.read_bytes() if service.ca_file else None
    return grpc.secure_channel(service.address, grpc.ssl_channel_credentials(ca), OPTIONS)


@contextmanager
def _errors() -> Iterator[None]:
    """A service's own words stay out of logs and events: they may repeat an answer."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        if code in RETRYABLE:
            raise Unavailable(
                Reason.METRIC_SERVICE_FAILED, f"The metric service does not answer ({code.name})."
            ) from None
        raise _failure(f"it answers {code.name}") from None


def _failure(problem: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.METRIC_SERVICE_FAILED, f"The metric service failed: {problem}. See its own log.")


def _to_values(response: metric_pb2.MeasureResponse, rows: int) -> list[Value]:
    values: list[Value] = [None] * rows
    for entry in response.values:
        weight = entry.weight if entry.HasField("weight") else 1.0
        if not 0 <= entry.position < rows or values[entry.position] is not None:
            raise _failure("a value names a row that was not asked for, or was answered already")
        if not math.isfinite(entry.value) or not math.isfinite(weight) or weight < 0:
            raise _failure("a value is not finite, or a weight is below 0")
        values[entry.position] = (entry.value, weight)
    return values


def _batches(rows: Sequence[metric_pb2.MeasureRow]) -> Iterator[list[metric_pb2.MeasureRow]]:
    """Rows in requests of at most 64 rows and half the size limit; the rest is room for the parameters."""
    batch: list[metric_pb2.MeasureRow] = []
    size = 0
    for row in rows:
        bytes_of_row = row.ByteSize()
        if batch and (len(batch) == MAX_ROWS or size + bytes_of_row > MAX_REQUEST_BYTES // 2):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += bytes_of_row
    if batch:
        yield batch


def _to_message(answered: AnsweredRow) -> metric_pb2.MeasureRow:
    row = answered.row
    return metric_pb2.MeasureRow(
        task=row.task,
        language=row.language,
        messages=[metric_pb2.MeasureMessage(role=role, content=content) for role, content in row.messages],
        reference=row.reference,
        key_insights_json=row.key_insights,
        answer=answered.answer or "",
        finished=answered.finished,
    )
