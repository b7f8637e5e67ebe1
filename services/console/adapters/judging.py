"""The registry's queue of drafts to judge, and the prompts that synthetic draws for it, over gRPC."""

import grpc

from services.console.ports import JudgingQueue, PromptDraws
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.rpc.channel import wire_errors

READ_SECONDS = 4
DRAW_SECONDS = 220


class JudgingClient(JudgingQueue):
    """The queue. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = judging_pb2_grpc.JudgingServiceStub(channel)

    def next_pair(self, specialist: str, key_id: str) -> judging_pb2.NextPairResponse:
        request = judging_pb2.NextPairRequest(specialist=specialist, judged_by=key_id)
        with wire_errors("registry"):
            return self._stub.NextPair(request, timeout=READ_SECONDS)

    def skip_pair(self, specialist: str, draft_id: str, key_id: str) -> None:
        request = judging_pb2.SkipPairRequest(specialist=specialist, draft_id=draft_id, judged_by=key_id)
        with wire_errors("registry"):
            self._stub.SkipPair(request, timeout=READ_SECONDS)

    def undo(self, specialist: str, decision: str, key_id: str) -> None:
        request = judging_pb2.UndoJudgementRequest(specialist=specialist, decision=decision, judged_by=key_id)
        with wire_errors("registry"):
            self._stub.UndoJudgement(request, timeout=READ_SECONDS)

    def list_own(self, specialist: str, token: str, key_id: str) -> judging_pb2.ListOwnJudgementsResponse:
        request = judging_pb2.ListOwnJudgementsRequest(specialist=specialist, judged_by=key_id, page_token=token)
        with wire_errors("registry"):
            return self._stub.ListOwnJudgements(request, timeout=READ_SECONDS)


class DrawClient(PromptDraws):
    """Synthetic, which draws prompts."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = synthetic_pb2_grpc.SyntheticServiceStub(channel)

    def draw(self, specialist: str) -> str:
        with wire_errors("synthetic"):
            request = synthetic_pb2.DrawPromptRequest(specialist=specialist)
            return self._stub.DrawPrompt(request, timeout=DRAW_SECONDS).draft_id
