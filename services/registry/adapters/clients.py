"""The services that the registry asks, over gRPC."""

from collections.abc import Sequence

import grpc

from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.evaluation.v1 import evaluation_pb2, evaluation_pb2_grpc
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.rpc.channel import wire_errors
from tailor.values import Labels
from tailor.wire import from_labels

TIMEOUT_SECONDS = 30


class AnonymizationClient:
    """Anonymization. Satisfies `ports.Anonymize`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = anonymization_pb2_grpc.AnonymizationServiceStub(channel)

    def __call__(self, text: str, labels: Labels) -> str:
        """The text without personal data."""
        request = anonymization_pb2.AnonymizeRequest(text=text, labels=from_labels(labels))
        with wire_errors("anonymization"):
            return self._stub.Anonymize(request, timeout=TIMEOUT_SECONDS).text


class PipelineClient:
    """Training. Satisfies `ports.CheckPipeline`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = training_pb2_grpc.TrainingServiceStub(channel)

    def __call__(self, base: str, recipes: Sequence[str]) -> None:
        """Raise NotFound or InvalidArgument if the base or a recipe does not exist."""
        request = training_pb2.CheckPipelineRequest(base=base, recipes=recipes)
        with wire_errors("training"):
            self._stub.CheckPipeline(request, timeout=TIMEOUT_SECONDS)


class EvaluationClient:
    """Evaluation. Satisfies `ports.RequestEvaluation`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = evaluation_pb2_grpc.EvaluationServiceStub(channel)

    def __call__(self, adapter_digest: str, request_id: str) -> None:
        """Request an evaluation; idempotent by request id."""
        request = evaluation_pb2.EvaluateRequest(adapter_digest=adapter_digest, request_id=request_id)
        with wire_errors("evaluation"):
            self._stub.Evaluate(request, timeout=TIMEOUT_SECONDS)
