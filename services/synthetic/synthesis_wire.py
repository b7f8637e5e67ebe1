"""Between the messages of SynthesisService and the domain."""

from collections.abc import Mapping

from services.synthetic.domain import Specialist
from services.synthetic.synthesis.critiques import CommentCounts, MonthOfCritiques
from services.synthetic.synthesis.domain import (
    DEFAULT_ANSWER_TOKENS,
    DEFAULT_BACK_TRANSLATION,
    DEFAULT_TEMPERATURE,
    GridAttribute,
    ModelRole,
    SampleState,
    SeedExample,
    Synthesis,
    SynthesisSample,
    SynthesisSpec,
    SynthesisState,
    TokenPrice,
)
from tailor.api.synthetic.v1 import synthesis_pb2 as pb
from tailor.wire import from_datetime

STATES = {state: pb.SynthesisState.Value(f"SYNTHESIS_STATE_{state.name}") for state in SynthesisState}
SAMPLE_STATES = {state: pb.SampleState.Value(f"SAMPLE_STATE_{state.name}") for state in SampleState}


def to_spec(message: pb.SynthesisSpec) -> SynthesisSpec:
    """Fields that are not set have their defaults."""
    return SynthesisSpec(
        specialist=message.specialist,
        task=message.task,
        target=message.target,
        document_ids=tuple(dict.fromkeys(message.document_ids)),
        seeds=message.seeds,
        examples=tuple(SeedExample(example.prompt, example.answer) for example in message.examples),
        instruction=message.instruction,
        attributes=tuple(GridAttribute(item.name, tuple(item.values)) for item in message.attributes),
        personas=tuple(message.personas),
        languages=tuple(message.languages),
        budget_tokens=message.budget_tokens,
        budget_eur=message.budget_eur,
        teacher_price=_to_price(message.teacher_price) if message.HasField("teacher_price") else None,
        judge_price=_to_price(message.judge_price) if message.HasField("judge_price") else None,
        min_mark=message.min_mark,
        min_back_translation=(
            message.min_back_translation if message.HasField("min_back_translation") else DEFAULT_BACK_TRANSLATION
        ),
        needs_review=message.needs_review,
        max_answer_tokens=message.max_answer_tokens or DEFAULT_ANSWER_TOKENS,
        temperature=message.temperature if message.HasField("temperature") else DEFAULT_TEMPERATURE,
    )


def _to_price(message: pb.SynthesisPrice) -> TokenPrice:
    return TokenPrice(message.input, message.output)


def from_spec(spec: SynthesisSpec) -> pb.SynthesisSpec:
    return pb.SynthesisSpec(
        specialist=spec.specialist,
        task=spec.task,
        target=spec.target,
        document_ids=spec.document_ids,
        seeds=spec.seeds,
        examples=[pb.InlineExample(prompt=example.prompt, answer=example.answer) for example in spec.examples],
        instruction=spec.instruction,
        attributes=[pb.SynthesisAttribute(name=item.name, values=item.values) for item in spec.attributes],
        personas=spec.personas,
        languages=spec.languages,
        budget_tokens=spec.budget_tokens,
        budget_eur=spec.budget_eur,
        teacher_price=_from_price(spec.teacher_price),
        judge_price=_from_price(spec.judge_price),
        min_mark=spec.min_mark,
        min_back_translation=spec.min_back_translation,
        needs_review=spec.needs_review,
        max_answer_tokens=spec.max_answer_tokens,
        temperature=spec.temperature,
    )


def _from_price(price: TokenPrice | None) -> pb.SynthesisPrice | None:
    return None if price is None else pb.SynthesisPrice(input=price.input, output=price.output)


def from_synthesis(synthesis: Synthesis) -> pb.Synthesis:
    samples = synthesis.samples
    return pb.Synthesis(
        synthesis_id=synthesis.synthesis_id,
        spec=from_spec(synthesis.spec),
        state=STATES[synthesis.state],
        reason=synthesis.reason,
        message=synthesis.message,
        teacher=synthesis.teacher,
        judge=synthesis.judge,
        prompt_version=synthesis.prompt_version,
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
    return pb.CountCommentsResponse(
        comments=counts.total,
        accepted=counts.accepted,
        pending=counts.pending,
        rejected=counts.rejected,
        refusals=_from_refusals(counts.refusals),
        running=counts.running,
        waiting=counts.waiting,
        held_out=counts.held_out,
        without_texts=counts.without_texts,
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
