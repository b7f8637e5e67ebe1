"""Asks inference for answers and log-probabilities of the models under evaluation."""

from collections.abc import Sequence

import grpc

from services.evaluation.domain import LoadedCandidate, Score
from services.evaluation.ports import Models
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.rpc.channel import wire_errors
from tailor.storage.ref import Ref
from tailor.wire import from_ref

LOAD_SECONDS = 300
CALL_SECONDS = 300


class RemoteModels(Models):
    """Candidates and the base in the engine that serves."""

    def __init__(self, channel: grpc.Channel, repetition_penalty: float) -> None:
        self._repetition_penalty = repetition_penalty
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        request = inference_pb2.LoadCandidateRequest(adapter_digest=adapter_digest, manifest=from_ref(manifest))
        with wire_errors("inference"):
            answer = self._stub.LoadCandidate(request, timeout=LOAD_SECONDS)
        return LoadedCandidate(answer.model, answer.parity if answer.HasField("parity") else None)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], max_tokens: int) -> str:
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
        row = inference_pb2.ScoreRow(messages=_messages(messages), completion=completion)
        with wire_errors("inference"):
            scores = self._stub.Score(inference_pb2.ScoreRequest(model=model, rows=[row]), timeout=CALL_SECONDS).scores
        return Score(scores[0].log_probability, scores[0].tokens)


def _messages(messages: Sequence[tuple[str, str]]) -> list[inference_pb2.Message]:
    return [inference_pb2.Message(role=role, content=content) for role, content in messages]
