"""Has specialists answer drawn prompts, over gRPC."""

import grpc

from services.synthetic.domain import DrawnPrompt
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.rpc.channel import wire_errors

ANSWER_SECONDS = 180


class InferenceAnswers:
    """A `ports.AnswerPrompt`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def __call__(self, specialist: str, prompt: DrawnPrompt) -> str:
        """Block for at most ANSWER_SECONDS."""
        request = inference_pb2.AnswerDrawnPromptRequest(
            specialist=specialist,
            messages=[inference_pb2.Message(role=role, content=content) for role, content in prompt.messages],
            document_ids=prompt.document_ids,
        )
        with wire_errors("inference"):
            return self._stub.AnswerDrawnPrompt(request, timeout=ANSWER_SECONDS).draft_id
