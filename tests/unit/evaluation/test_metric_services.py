"""The client of metric services, against real gRPC servers: the example of the documentation, and servers that misbehave."""

import datetime
import importlib.util
import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.evaluation.adapters import metric_services
from services.evaluation.adapters.metric_services import MAX_REQUEST_BYTES, RemoteMetricServices, ServiceAddress
from services.evaluation.metrics import measure
from services.evaluation.metrics.context import MetricContext
from tailor.api.evaluation.v1 import metric_pb2, metric_pb2_grpc
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.values import MetricDefinition
from tests.fakes.serving import serving
from tests.unit.evaluation.metrics.judges import answered

EXAMPLE = Path(__file__).parents[3] / "docs" / "how-to" / "metric_server.py"
DEFINITION = MetricDefinition(
    "short", "remote", '{"service": "ours", "metric": "short_sentences", "parameters": {"max_words": 3}}'
)
Answer = Callable[[metric_pb2.MeasureRequest, grpc.ServicerContext], metric_pb2.MeasureResponse]


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("metric_server", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def service(answer: Answer, timeout_seconds: float = 60) -> Iterator[ServiceAddress]:
    class Servicer(metric_pb2_grpc.MetricServiceServicer):
        def Measure(
            self, request: metric_pb2.MeasureRequest, context: grpc.ServicerContext
        ) -> metric_pb2.MeasureResponse:
            return answer(request, context)

    with serving(metric_pb2_grpc.add_MetricServiceServicer_to_server, Servicer()) as address:
        yield ServiceAddress(address, tls=False, timeout_seconds=timeout_seconds)


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_services, "ATTEMPTS", 1)


def ask(address: ServiceAddress, *answers: str, service: str = "ours") -> list[tuple[float, float] | None]:
    rows = [answered(answer) for answer in answers]
    return RemoteMetricServices({"ours": address}).measure(service, "short_sentences", {"max_words": 3}, rows)


def test_the_example_measures_answers() -> None:
    server, port = load_example().serve("127.0.0.1:0")
    try:
        services = RemoteMetricServices({"ours": ServiceAddress(f"127.0.0.1:{port}", tls=False)})
        rows = [
            answered("It failed. Nobody had noticed it before."),
            answered("Fine. Done. Over."),
            answered(""),
            answered(None),
        ]
        measurement = measure(DEFINITION, rows, MetricContext(services=services))
    finally:
        server.stop(None)
    assert measurement.row_values() == [0.5, 1.0, None, None]
    # Four of five sentences are short.
    assert measurement.value() == pytest.approx(4 / 5)


def test_the_example_serves_over_tls(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    server, port = load_example().serve("127.0.0.1:0", certificate, key)
    try:
        trusted = ServiceAddress(f"127.0.0.1:{port}", ca_file=certificate)
        assert ask(trusted, "Fine.") == [(1.0, 1.0)]
        with pytest.raises(Unavailable):
            ask(ServiceAddress(f"127.0.0.1:{port}"), "Fine.")
    finally:
        server.stop(None)


def test_unknown_services_are_refused() -> None:
    with pytest.raises(FailedPrecondition) as error:
        ask(ServiceAddress("127.0.0.1:9", tls=False), "a", service="theirs")
    assert error.value.reason == Reason.UNKNOWN_METRIC_SERVICE


def test_a_service_that_does_not_answer_in_time_is_unavailable() -> None:
    is_over = threading.Event()

    def slow(request: metric_pb2.MeasureRequest, context: grpc.ServicerContext) -> metric_pb2.MeasureResponse:
        is_over.wait()
        return metric_pb2.MeasureResponse()

    with service(slow, timeout_seconds=1) as address:
        try:
            with pytest.raises(Unavailable):
                ask(address, "a")
        finally:
            is_over.set()


def test_a_refusal_does_not_repeat_the_services_words() -> None:
    def refuse(request: metric_pb2.MeasureRequest, context: grpc.ServicerContext) -> metric_pb2.MeasureResponse:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"cannot measure {request.rows[0].answer}")
        raise AssertionError

    with service(refuse) as address, pytest.raises(FailedPrecondition) as error:
        ask(address, "SECRET")
    assert error.value.reason == Reason.METRIC_SERVICE_FAILED
    assert "SECRET" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        metric_pb2.RowValue(position=1, value=0.5),
        metric_pb2.RowValue(position=-1, value=0.5),
        metric_pb2.RowValue(position=0, value=float("nan")),
        metric_pb2.RowValue(position=0, value=0.5, weight=-1.0),
    ],
)
def test_values_that_make_no_sense_fail(value: metric_pb2.RowValue) -> None:
    response = metric_pb2.MeasureResponse(values=[value])
    with service(lambda request, context: response) as address, pytest.raises(FailedPrecondition) as error:
        ask(address, "a")
    assert error.value.reason == Reason.METRIC_SERVICE_FAILED


def test_a_response_that_is_too_large_is_not_read() -> None:
    response = metric_pb2.MeasureResponse(values=[metric_pb2.RowValue(position=0, value=1.0)] * 100_000)
    with service(lambda request, context: response) as address, pytest.raises((FailedPrecondition, Unavailable)):
        ask(address, "a")


def test_many_rows_go_in_several_requests_within_the_limits() -> None:
    sizes: list[tuple[int, int]] = []

    def count(request: metric_pb2.MeasureRequest, context: grpc.ServicerContext) -> metric_pb2.MeasureResponse:
        sizes.append((len(request.rows), request.ByteSize()))
        values = [metric_pb2.RowValue(position=row.position, value=len(row.answer)) for row in request.rows]
        return metric_pb2.MeasureResponse(values=values)

    answers = ["a" * number for number in range(1, 131)] + ["b" * 900_000] * 5
    with service(count) as address:
        values = ask(address, *answers)
    assert values == [(float(len(answer)), 1.0) for answer in answers]
    assert all(rows <= 64 and size < MAX_REQUEST_BYTES for rows, size in sizes)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "metrics")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return files
