"""The gRPC service of syntheses. Syntheses of specialists that a caller may not use are reported as unknown."""

import time
from collections.abc import Iterator, Mapping

import grpc

from services.synthetic.domain import Specialist, find_specialist
from services.synthetic.rpc import check_specialist
from services.synthetic.synthesis.handlers import SynthesisCommands
from services.synthetic.synthesis_domain import (
    CommentCounts,
    ModelRole,
    MonthOfCritiques,
    SampleState,
    Synthesis,
    SynthesisSample,
    SynthesisSpec,
)
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.api.synthetic.v1 import synthesis_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, NotFound, Reason
from tailor.rpc.auth import check_caller, current_caller
from tailor.wire import from_datetime

WATCH_SECONDS = 1.0
MAX_REQUEST_ID = 128
MAX_DECISIONS = 100


class SynthesisServicer(synthesis_pb2_grpc.SynthesisServiceServicer):
    """Translates calls for the commands."""

    def __init__(self, commands: SynthesisCommands, specialists: Mapping[str, Specialist]) -> None:
        self._commands = commands
        self._specialists = specialists

    def CreateSynthesis(
        self, request: pb.CreateSynthesisRequest, context: grpc.ServicerContext
    ) -> pb.CreateSynthesisResponse:
        if len(request.request_id) > MAX_REQUEST_ID:
            raise InvalidArgument(
                Reason.INVALID_REQUEST_ID, f"`request_id` must have at most {MAX_REQUEST_ID} characters."
            )
        spec = to_spec(request.spec)
        synthesis = self._commands.create(spec, self._find_specialist(spec.specialist), request.request_id)
        return pb.CreateSynthesisResponse(synthesis=from_synthesis(synthesis))

    def GetSynthesis(self, request: pb.GetSynthesisRequest, context: grpc.ServicerContext) -> pb.GetSynthesisResponse:
        return pb.GetSynthesisResponse(synthesis=from_synthesis(self._find_visible(request.synthesis_id)))

    def ListSyntheses(
        self, request: pb.ListSynthesesRequest, context: grpc.ServicerContext
    ) -> pb.ListSynthesesResponse:
        if request.specialist:
            check_specialist(request.specialist)
        wanted = [request.specialist] if request.specialist else current_caller().specialists
        page = self._commands.syntheses.list_page(request, wanted)
        return pb.ListSynthesesResponse(syntheses=map(from_synthesis, page.items), next_page_token=page.next_token)

    def CountComments(
        self, request: pb.CountCommentsRequest, context: grpc.ServicerContext
    ) -> pb.CountCommentsResponse:
        specialist, comments = self._find_specialist(request.specialist), self._commands.comments
        counts, month = comments.count(specialist), comments.month(specialist.name)
        return from_counts(specialist, counts, month, has_teacher=self._commands.teacher is not None)

    def WatchSynthesis(
        self, request: pb.WatchSynthesisRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchSynthesisResponse]:
        """Looks once per second."""
        last = None
        while context.is_active():
            synthesis = self._find_visible(request.synthesis_id)
            message = from_synthesis(synthesis)
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
        return pb.CancelSynthesisResponse(synthesis=from_synthesis(self._commands.cancel(request.synthesis_id)))

    def ResumeSynthesis(
        self, request: pb.ResumeSynthesisRequest, context: grpc.ServicerContext
    ) -> pb.ResumeSynthesisResponse:
        self._find_visible(request.synthesis_id)
        return pb.ResumeSynthesisResponse(synthesis=from_synthesis(self._commands.resume(request.synthesis_id)))

    def ListSamples(self, request: pb.ListSamplesRequest, context: grpc.ServicerContext) -> pb.ListSamplesResponse:
        self._find_visible(request.synthesis_id)
        page = self._commands.syntheses.list_samples(request)
        return pb.ListSamplesResponse(samples=map(from_sample, page.items), next_page_token=page.next_token)

    def ReviewSamples(
        self, request: pb.ReviewSamplesRequest, context: grpc.ServicerContext
    ) -> pb.ReviewSamplesResponse:
        self._find_visible(request.synthesis_id)
        if not 1 <= len(request.decisions) <= MAX_DECISIONS:
            raise InvalidArgument(Reason.INVALID_ARGUMENT, f"Send 1 to {MAX_DECISIONS} decisions.")
        decisions = {decision.row_id: decision.accept for decision in request.decisions}
        caller = current_caller()
        synthesis = self._commands.review(request.synthesis_id, decisions, caller.key_id or caller.name)
        return pb.ReviewSamplesResponse(synthesis=from_synthesis(synthesis))

    def _find_specialist(self, name: str) -> Specialist:
        check_specialist(name)
        return find_specialist(self._specialists, name)

    def _find_visible(self, synthesis_id: str) -> Synthesis:
        synthesis = self._commands.get(synthesis_id)
        if not current_caller().may_use(synthesis.spec.specialist):
            raise NotFound(Reason.UNKNOWN_SYNTHESIS, "There is no such synthesis.")
        return synthesis


def to_spec(message: pb.SynthesisSpec) -> SynthesisSpec:
    """Fields that are not set have their defaults."""
    return decode(SynthesisSpec, message, document_ids=tuple(dict.fromkeys(message.document_ids)))


def from_synthesis(synthesis: Synthesis) -> pb.Synthesis:
    samples = synthesis.samples
    return encode(
        pb.Synthesis,
        synthesis,
        accepted=samples.get(SampleState.ACCEPTED, 0),
        pending=samples.get(SampleState.PENDING, 0),
        rejected=samples.get(SampleState.REJECTED, 0),
        refusals=_from_refusals(synthesis.refusals),
        use=_from_use(synthesis),
        create_time=from_datetime(synthesis.created_at),
        resume_time=from_datetime(synthesis.resume_at),
        end_time=from_datetime(synthesis.ended_at),
    )


def from_counts(
    specialist: Specialist, counts: CommentCounts, month: MonthOfCritiques, *, has_teacher: bool
) -> pb.CountCommentsResponse:
    teacher = pb.TEACHER_STATE_READY if has_teacher else pb.TEACHER_STATE_NONE
    return encode(
        pb.CountCommentsResponse,
        counts,
        comments=counts.total,
        refusals=_from_refusals(counts.refusals),
        teacher=teacher if specialist.use_teacher else pb.TEACHER_STATE_NOT_ALLOWED,
        tokens_per_month=specialist.rows.critique_tokens_per_month,
        tokens_this_month=month.tokens,
    )


def _from_refusals(refusals: Mapping[str, int]) -> list[pb.SynthesisRefusals]:
    return [pb.SynthesisRefusals(reason=reason, rows=rows) for reason, rows in sorted(refusals.items())]


def _from_use(synthesis: Synthesis) -> pb.SynthesisUse:
    models = [synthesis.use.of(role) for role in ModelRole]
    cost = synthesis.spec.cost(synthesis.use)
    return pb.SynthesisUse(
        answers=synthesis.use.answers,
        tokens=sum(model.used.total for model in models),
        reserved_tokens=sum(model.reserved.total for model in models),
        lost_tokens=sum(model.lost.total for model in models),
        eur=None if cost is None else float(cost),
    )


def from_sample(sample: SynthesisSample) -> pb.Sample:
    row = sample.row
    texts = {"prompt": row.prompt, "completion": row.completion} if row.messages else {}
    return encode(
        pb.Sample,
        sample,
        task=row.task,
        document_ids=row.document_ids,
        language=row.language,
        lineage=dict(row.lineage),
        review_time=from_datetime(sample.reviewed_at),
        **texts,
    )
