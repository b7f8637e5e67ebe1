"""The services that the registry asks."""

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.rpc.channel import wire_errors

TIMEOUT_SECONDS = 30


class RemoteBarrier:
    """Anonymization over gRPC."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def anonymize(self, text: str, labels: tuple[str, str, str]) -> str:
        """The text without personal values."""
        source, department, confidentiality = labels
        request = anonymization_pb2.AnonymizeRequest(
            text=text,
            labels=common_pb2.Labels(source=source, department=department, confidentiality=confidentiality),
        )
        with wire_errors("anonymization"):
            return self._stub.Anonymize(request, timeout=TIMEOUT_SECONDS).text


class RemoteEvaluator:
    """Evaluation over gRPC."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)

    def evaluate(self, adapter_digest: str, request_id: str) -> None:
        """Have an adapter measured again."""
        request = evaluation_pb2.EvaluateRequest(adapter_digest=adapter_digest, request_id=request_id)
        with wire_errors("evaluation"):
            self._stub.Evaluate(request, timeout=TIMEOUT_SECONDS)
