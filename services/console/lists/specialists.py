"""Specialists, and the syntheses and samples for them."""

from services.console import rules
from services.console.domain import Page, Visitor
from services.console.listing import Column, ListFilter, ListQuery, ListSpec
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_specialist,
    chosen_specialist,
    read_spec,
    seconds,
    to_options,
    to_plain_options,
)
from services.console.ports import Services
from services.console.reads import LIST_SIZE, read_page, read_specialists
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.api.synthetic.v1 import synthesis_pb2


def _serves(item: registry_pb2.GetSpecialistResponse) -> str:
    decision = item.serving.decision
    if decision.adapter_digest:
        return "overridden" if decision.overridden else "adapter"
    return "base" if decision.generation and not decision.ended else "nothing"


SERVES = (
    ("adapter", "an adapter"),
    ("overridden", "an adapter, overridden"),
    ("base", "the base"),
    ("nothing", "nothing"),
)


def list_specialists(
    services: Services, visitor: Visitor, parameters: Parameters
) -> ListAnswer[registry_pb2.GetSpecialistResponse]:
    """Specialists by name."""
    spec = ListSpec[registry_pb2.GetSpecialistResponse](
        path="/specialists",
        noun="specialists",
        columns=(
            Column("Specialist", "name", lambda item: item.specialist.name),
            Column("Serves", "serves", _serves),
            Column("Generation", "generation", lambda item: item.serving.decision.generation, numeric=True),
            Column("Base", "base", lambda item: item.specialist.base),
            Column("Pipeline", "pipeline", lambda item: rules.pipeline(item.specialist)),
            Column("Next round"),
            Column("Changed (UTC)", "changed", lambda item: seconds(item.specialist.update_time), numeric=True),
            Column("Links", silent=True),
        ),
        text=lambda item: " ".join(
            (item.specialist.name, item.specialist.description, item.specialist.base, rules.pipeline(item.specialist))
        ),
        searched="name, description, base, pipeline",
        choices=(
            ListFilter("serves", "Serves", SERVES, _serves),
            ListFilter(
                "promotion",
                "Promotion",
                to_options(models_pb2.PromotionMode, "PROMOTION_MODE_"),
                lambda item: rules.code(item.specialist, "promotion") if item.specialist.promotion else "AUTOMATIC",
            ),
        ),
        first="first",
        further="further ones",
    )
    return read_spec(
        spec,
        parameters,
        "registry",
        lambda token, query: read_specialists(services, token),
        lambda item: visitor.may_use(item.specialist.name),
    )


def list_syntheses(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[synthesis_pb2.Synthesis]:
    """Syntheses, newest first."""
    spec = ListSpec[synthesis_pb2.Synthesis](
        path="/syntheses",
        noun="syntheses",
        columns=(
            Column("Synthesis", "synthesis", lambda item: item.synthesis_id),
            Column("Specialist", "specialist", lambda item: item.spec.specialist),
            Column("Task", "task", lambda item: item.spec.task),
            Column("State", "state", lambda item: rules.word(item, "state")),
            Column("Accepted", "accepted", lambda item: item.accepted, numeric=True),
            Column("Waiting", "waiting", lambda item: item.pending, numeric=True),
            Column("Refused", "refused", lambda item: sum(part.rows for part in item.refusals), numeric=True),
            Column("Target", "target", lambda item: item.spec.target, numeric=True),
            Column("Tokens", "tokens", lambda item: item.use.tokens + item.use.lost_tokens, numeric=True),
            Column("EUR", "eur", lambda item: item.use.eur, numeric=True),
            Column("Created (UTC)", "created", lambda item: seconds(item.create_time), numeric=True),
        ),
        text=lambda item: " ".join(
            (item.synthesis_id, item.spec.specialist, item.spec.task, item.teacher, item.judge, item.reason)
        ),
        searched="id, specialist, task, models, reason",
        choices=(
            *by_specialist(services, visitor),
            ListFilter(
                "state",
                "State",
                to_options(synthesis_pb2.SynthesisState, "SYNTHESIS_STATE_"),
                lambda item: rules.code(item, "state"),
            ),
        ),
    )

    def list_page(token: str, query: ListQuery) -> Page[synthesis_pb2.Synthesis]:
        specialist = chosen_specialist(visitor, query)
        request = synthesis_pb2.ListSynthesesRequest(specialist=specialist, page_token=token, page_size=LIST_SIZE)
        return read_page(services.syntheses.ListSyntheses, request, "syntheses")

    return read_spec(
        spec,
        parameters,
        "synthetic",
        list_page,
        lambda item: visitor.may_use(item.spec.specialist),
    )


def list_samples(services: Services, synthesis_id: str, parameters: Parameters) -> ListAnswer[synthesis_pb2.Sample]:
    """The samples of a synthesis that the visitor may see, in the order in which they were made."""
    spec = ListSpec[synthesis_pb2.Sample](
        path=f"/syntheses/{synthesis_id}",
        noun="samples",
        columns=(
            Column("State", "state", lambda item: rules.word(item, "state")),
            Column("Mark", "mark", lambda item: item.mark, numeric=True),
            Column("Language", "language", lambda item: item.language),
        ),
        text=lambda item: " ".join((item.row_id, item.prompt, item.completion, item.reason, *item.document_ids)),
        searched="prompt, answer, reason, ids",
        choices=(ListFilter("state", "State", to_plain_options(("pending", "accepted", "rejected", "refused"))),),
        first="first",
        further="further ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[synthesis_pb2.Sample]:
        state = query.filters.get("state", "unspecified").upper()
        number = synthesis_pb2.SampleState.Value(f"SAMPLE_STATE_{state}")
        request = synthesis_pb2.ListSamplesRequest(synthesis_id=synthesis_id, state=number, page_token=token)
        return read_page(services.syntheses.ListSamples, request, "samples")

    return read_spec(spec, parameters, "synthetic", list_page)
