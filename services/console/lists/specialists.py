"""Specialists, and the syntheses and samples for them."""

from services.console.domain import Page, Visitor
from services.console.listing import ListFilter, ListQuery, ListSpec
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_enum,
    read_messages,
    read_of_specialists,
    read_spec,
    to_columns,
    to_plain_options,
)
from services.console.ports import Services
from services.console.reads import read_page
from tailor.api.registry.v1.registry_pb2 import GetSpecialistResponse, ListSpecialistsRequest
from tailor.api.synthetic.v1.synthesis_pb2 import (
    ListSamplesRequest,
    ListSynthesesRequest,
    Sample,
    SampleState,
    Synthesis,
)
from tailor.columns import columns, join, read
from tailor.list_columns import SPECIALISTS, SYNTHESES

SAMPLES = columns(Sample, "state, mark, language")
SERVES = (
    ("adapter", "an adapter"),
    ("overridden", "an adapter, overridden"),
    ("base", "the base"),
    ("nothing", "nothing"),
)


def _serves(item: GetSpecialistResponse) -> str:
    decision = item.serving.decision
    if decision.adapter_digest:
        return "overridden" if decision.overridden else "adapter"
    return "base" if decision.generation and not decision.ended else "nothing"


def _promotion(item: GetSpecialistResponse) -> str:
    return str(read(item, "specialist.promotion")).upper() if item.specialist.promotion else "AUTOMATIC"


def list_specialists(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[GetSpecialistResponse]:
    """Specialists by name."""
    (pipeline,) = SPECIALISTS.pick("pipeline")
    spec = ListSpec[GetSpecialistResponse](
        path="/specialists",
        noun="specialists",
        columns=to_columns(SPECIALISTS, "name, serves, generation, base, pipeline, Next round, changed, (Links)"),
        text=join("specialist.name, specialist.description, specialist.base", pipeline.cell),
        searched="name, description, base, pipeline",
        choices=(
            ListFilter("serves", "Serves", SERVES, _serves),
            ListFilter(
                "promotion", "Promotion", by_enum(GetSpecialistResponse, "specialist.promotion").options, _promotion
            ),
        ),
        first="first",
        further="further ones",
    )
    return read_messages(
        spec,
        parameters,
        services.registry.ListSpecialists,
        ListSpecialistsRequest(),
        lambda item: visitor.may_use(item.specialist.name),
    )


def list_syntheses(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[Synthesis]:
    """Syntheses, newest first."""
    spec = ListSpec[Synthesis](
        path="/syntheses",
        noun="syntheses",
        columns=to_columns(
            SYNTHESES, "synthesis, specialist, task, state, accepted, waiting, refused, target, tokens, cost, created"
        ),
        text=join("synthesis_id, spec.specialist, spec.task, teacher, judge, reason"),
        searched="id, specialist, task, models, reason",
        choices=(by_enum(Synthesis, "state"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.syntheses.ListSyntheses, ListSynthesesRequest()
    )


def list_samples(services: Services, synthesis_id: str, parameters: Parameters) -> ListAnswer[Sample]:
    """The samples of a synthesis that the visitor may see, in the order in which they were made."""
    spec = ListSpec[Sample](
        path=f"/syntheses/{synthesis_id}",
        noun="samples",
        columns=to_columns(SAMPLES, "state, mark, language"),
        text=join("row_id, prompt, completion, reason, document_ids"),
        searched="prompt, answer, reason, ids",
        choices=(ListFilter("state", "State", to_plain_options(("pending", "accepted", "rejected", "refused"))),),
        first="first",
        further="further ones",
    )

    def list_page(token: str, query: ListQuery) -> Page[Sample]:
        state = SampleState.Value(f"SAMPLE_STATE_{query.filters.get('state', 'unspecified').upper()}")
        request = ListSamplesRequest(synthesis_id=synthesis_id, state=state, page_token=token)
        return read_page(services.syntheses.ListSamples, request, "samples")

    return read_spec(spec, parameters, "synthetic", list_page)
