"""Asking the barrier what it replaced too much."""

from services.synthetic.adapters.clients import measure_over_redaction
from services.synthetic.domain import OverRedaction
from tailor.api.anonymization.v1 import replaced_pb2_grpc
from tailor.rpc.channel import open_channel
from tests.fakes.replaced import FakeReplaced
from tests.fakes.serving import serving


def measure(address: str, *batches: list[str]) -> OverRedaction:
    stub = replaced_pb2_grpc.ReplacedServiceStub(open_channel(address, lambda: "tlr_test"))
    return measure_over_redaction(stub, 1.5, batches)


def test_the_figure_is_per_thousand_words_and_unknown_without_any() -> None:
    with serving(replaced_pb2_grpc.add_ReplacedServiceServicer_to_server, FakeReplaced()) as address:
        assert measure(address, ["doc_1", "doc_2"], ["doc_3", "doc_old"]) == OverRedaction(2.0, 1.5)
        assert measure(address, ["doc_old"]) == OverRedaction()


def test_a_barrier_that_does_not_answer_leaves_the_figure_unknown_and_stops_no_build() -> None:
    assert measure("127.0.0.1:1", ["doc_1"]) == OverRedaction()
