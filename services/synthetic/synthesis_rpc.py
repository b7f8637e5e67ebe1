"""The gRPC service of syntheses. Syntheses of specialists that a caller may not use are reported as unknown."""

import time
from collections.abc import Callable, Iterator

import grpc

from services.synthetic import synthesis_wire as wire
from services.synthetic.domain import Specialist
from services.synthetic.synthesis.domain import Synthesis
from services.synthetic.synthesis.handlers import SynthesisCommands
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.api.synthetic.v1 import synthesis_pb2_grpc
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.auth import check_caller, current_caller
from tailor.rpc.paging import offset, page_size

WATCH_SECONDS = 1.0
MAX_REQUEST_ID = 128
MAX_DECISIONS = 100


class SynthesisServicer(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Translates calls for the commands."""

    def __init__(self, commands: SynthesisCommands, find_specialist: Callable[[str], Specialist]) -> None:
        self._commands = commands
        self._find_specialist = find_specialist

    def CreateSynthesis(
        self, request: pb.CreateSynthesisRequest, context: grpc.ServicerContext
    ) -> pb.CreateSynthesisResponse:
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                Reason.INVALID_REQUEST_ID, f"`request_id` must have at most {MAX_REQUEST_ID} characters."
            )
        spec = wire.to_spec(request.spec)
        _check_specialist(spec.specialist)
        synthesis = self._commands.create(spec, self._find_specialist(spec.specialist), request.request_id)
        return pb.CreateSynthesisResponse(synthesis=wire.from_synthesis(synthesis))

    def GetSynthesis(self, request: pb.GetSynthesisRequest, context: grpc.ServicerContext) -> pb.GetSynthesisResponse:
        return pb.GetSynthesisResponse(synthesis=wire.from_synthesis(self._find_visible(request.synthesis_id)))

    def ListSyntheses(
        self, request: pb.ListSynthesesRequest, context: grpc.ServicerContext
    ) -> pb.ListSynthesesResponse:
        if request.specialist:
            _check_specialist(request.specialist)
        size, start = page_size(request.page_size, 50, 200), offset(request.page_token)
        wanted = [request.specialist] if request.specialist else sorted(current_caller().specialists)
        syntheses = self._commands.syntheses.list_newest(wanted, size + 1, start)
        token = str(start + size) if len(syntheses) > size else ""
        return pb.ListSynthesesResponse(syntheses=map(wire.from_synthesis, syntheses[:size]), next_page_token=token)

    def CountComments(
        self, request: pb.CountCommentsRequest, context: grpc.ServicerContext
    ) -> pb.CountCommentsResponse:
        _check_specialist(request.specialist)
        specialist, comments = self._find_specialist(request.specialist), self._commands.comments
        counts, month = comments.count(specialist), comments.month(specialist.name)
        return wire.from_counts(specialist, counts, month, has_teacher=self._commands.teacher is not None)

    def WatchSynthesis(
        self, request: pb.WatchSynthesisRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchSynthesisResponse]:
        """Looks once per second."""
        last = None
        while context.is_active():
            synthesis = self._find_visible(request.synthesis_id)
            message = wire.from_synthesis(synthesis)
            if message != last:
                yield pb.WatchSynthesisResponse(synthesis=message)
            if synthesis.state.has_ended:
                return
            last = message
            check_caller()
            time.sleep(WATCH_SECONDS)

    def CancelSynthesis(
        self, request: pb.CancelSynthesisRequest, context: grpc.ServicerContext
    ) -> pb.CancelSynthesisResponse:
        self._find_visible(request.synthesis_id)
        return pb.CancelSynthesisResponse(synthesis=wire.from_synthesis(self._commands.cancel(request.synthesis_id)))

    def ResumeSynthesis(
        self, request: pb.ResumeSynthesisRequest, context: grpc.ServicerContext
    ) -> pb.ResumeSynthesisResponse:
        self._find_visible(request.synthesis_id)
        return pb.ResumeSynthesisResponse(synthesis=wire.from_synthesis(self._commands.resume(request.synthesis_id)))

    def ListSamples(self, request: pb.ListSamplesRequest, context: grpc.ServicerContext) -> pb.ListSamplesResponse:
        self._find_visible(request.synthesis_id)
        size, start = page_size(request.page_size, 20, 100), offset(request.page_token)
        state = wire.to_sample_state(request.state)
        samples = self._commands.syntheses.samples(request.synthesis_id, state, size + 1, start)
        token = str(start + size) if len(samples) > size else ""
        return pb.ListSamplesResponse(samples=map(wire.from_sample, samples[:size]), next_page_token=token)

    def ReviewSamples(
        self, request: pb.ReviewSamplesRequest, context: grpc.ServicerContext
    ) -> pb.ReviewSamplesResponse:
        self._find_visible(request.synthesis_id)
        if not 1 <= len(request.decisions) <= MAX_DECISIONS:
            raise InvalidArgument(Reason.INVALID_ARGUMENT, f"Send 1 to {MAX_DECISIONS} decisions.")
        decisions = {decision.row_id: decision.accept for decision in request.decisions}
        caller = current_caller()
        synthesis = self._commands.review(request.synthesis_id, decisions, caller.key_id or caller.name)
        return pb.ReviewSamplesResponse(synthesis=wire.from_synthesis(synthesis))

    def _find_visible(self, synthesis_id: str) -> Synthesis:
        synthesis = self._commands.get(synthesis_id)
        if not current_caller().may_use(synthesis.spec.specialist):
            raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")
        return synthesis


def _check_specialist(specialist: str) -> None:
    """Raise the same NotFound for a specialist that the key may not use and for one that does not exist."""
    if not current_caller().may_use(specialist):
        raise NotFound(Reason.UNKNOWN_SPECIALIST, "This specialist does not exist, or your key may not use it.")
