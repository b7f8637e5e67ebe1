"""Asking inference."""

from collections.abc import Sequence

import grpc

from services.evaluation.domain import Loaded, Score
from services.evaluation.wire import from_ref
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.rpc.channel import wire_errors
from tailor.storage.ref import Ref

LOAD_SECONDS = 300
CALL_SECONDS = 300


class RemoteModels:
    """Satisfies `domain.Models`."""

    def __init__(self, channel: grpc.Channel, repetition_penalty: float) -> None:
        self._repetition_penalty = repetition_penalty
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def load(self, adapter_digest: str, manifest: Ref) -> Loaded:
        """Load a candidate and compare it with the trainer."""
        request = inference_pb2.LoadCandidateRequest(adapter_digest=adapter_digest, manifest=from_ref(manifest))
        with wire_errors("inference"):
            answer = self._stub.LoadCandidate(request, timeout=LOAD_SECONDS)
        return Loaded(answer.model, answer.parity if answer.HasField("parity") else None)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], max_tokens: int) -> str:
        """The likeliest answer."""
        request = inference_pb2.GenerateRequest(
            model=model,
            messages=_messages(messages),
            sampling=inference_pb2.Sampling(
                temperature=0, max_tokens=max_tokens, repetition_penalty=self._repetition_penalty
            ),
        )
        with wire_errors("inference"):
            text: str = self._stub.Generate(request, timeout=CALL_SECONDS).text
        return text

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        """How likely the model finds an answer."""
        row = inference_pb2.ScoreRow(messages=_messages(messages), completion=completion)
        with wire_errors("inference"):
            scores = self._stub.Score(inference_pb2.ScoreRequest(model=model, rows=[row]), timeout=CALL_SECONDS).scores
        return Score(scores[0].log_probability, scores[0].tokens)


def _messages(messages: Sequence[tuple[str, str]]) -> list[inference_pb2.Message]:
    return [inference_pb2.Message(role=role, content=content) for role, content in messages]
