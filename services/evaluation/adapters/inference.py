"""Asks inference for answers and log-probabilities of the models under evaluation."""

import time
from collections.abc import Sequence

import grpc

from services.evaluation.domain import Answer, LoadedCandidate, Score
from services.evaluation.ports import Models
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.codec import decode, encode
from tailor.rpc.channel import wire_errors
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults
from tailor.wire import from_ref

LOAD_SECONDS = 300
# Answers may fill the context, and on a processor many are written at a time.
ANSWER_SECONDS = 1800
CALL_SECONDS = 300
# Makes drawn answers repeatable.
SEED = 16


class RemoteModels(Models):
    """Candidates and the base in the engine that serves. Inference passes calls on to the deployment of `base`."""

    def __init__(self, channel: grpc.Channel, base: str = "") -> None:
        self._channel = channel
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self._base = base

    def on_base(self, base: str) -> Models:
        return RemoteModels(self._channel, base)

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        request = inference_pb2.LoadCandidateRequest(
            adapter_digest=adapter_digest, manifest=from_ref(manifest), base=self._base
        )
        with wire_errors("inference"):
            answer = self._stub.LoadCandidate(request, timeout=LOAD_SECONDS)
        return decode(LoadedCandidate, answer)

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        to_send = encode(inference_pb2.Sampling, sampling, seed=SEED if sampling.temperature else 0)
        request = inference_pb2.GenerateRequest(model=self._name(model), messages=_messages(messages), sampling=to_send)
        started = time.monotonic()
        with wire_errors("inference"):
            response = self._stub.Generate(request, timeout=ANSWER_SECONDS)
        return Answer(
            text=response.text,
            finished=response.finish_reason != "length",
            seconds=time.monotonic() - started,
            prompt_tokens=response.usage.prompt_tokens,
            tokens=response.usage.completion_tokens,
        )

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        row = inference_pb2.ScoreRow(messages=_messages(messages), completion=completion)
        with wire_errors("inference"):
            request = inference_pb2.ScoreRequest(model=self._name(model), rows=[row])
            scores = self._stub.Score(request, timeout=CALL_SECONDS).scores
        return decode(Score, scores[0])

    def _name(self, model: str) -> str:
        return f"{model}@{self._base}" if self._base else model


def _messages(messages: Sequence[tuple[str, str]]) -> list[inference_pb2.Message]:
    return [inference_pb2.Message(role=role, content=content) for role, content in messages]
