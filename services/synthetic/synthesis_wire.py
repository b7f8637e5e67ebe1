"""Between the messages of SynthesisService and the domain."""

from collections.abc import Mapping

from services.synthetic.domain import Specialist
from services.synthetic.synthesis.critiques import CommentCounts, MonthOfCritiques
from services.synthetic.synthesis.domain import (
    ModelRole,
    SampleState,
    Synthesis,
    SynthesisSample,
    SynthesisSpec,
    SynthesisState,
)
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.codec import decode, encode
from tailor.wire import from_datetime

STATES = {state: pb.SynthesisState.Value(f"SYNTHESIS_STATE_{state.name}") for state in SynthesisState}
SAMPLE_STATES = {state: pb.SampleState.Value(f"SAMPLE_STATE_{state.name}") for state in SampleState}


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


def to_sample_state(value: int) -> SampleState | None:
    """None for unspecified."""
    return next((state for state, number in SAMPLE_STATES.items() if number == value), None)


def from_sample(sample: SynthesisSample) -> pb.Sample:
    row = sample.row
    return pb.Sample(
        row_id=sample.row_id,
        state=SAMPLE_STATES[sample.state],
        reason=sample.reason,
        task=row.task,
        prompt=row.prompt if row.messages else "",
        completion=row.completion if row.messages else "",
        document_ids=row.document_ids,
        language=row.language,
        mark=sample.mark,
        back_translation=sample.back_translation,
        lineage=dict(row.lineage),
        reviewer=sample.reviewer,
        review_time=from_datetime(sample.reviewed_at),
    )
