"""Specialists, and the syntheses and samples for them."""

from services.console.clients import Services
from services.console.domain import Visitor
from services.console.list_views import ListFilter, ListSpec
from services.console.lists.common import (
    ListAnswer,
    Parameters,
    by_enum,
    read_messages,
    read_of_specialists,
    to_columns,
    to_plain_options,
)
from tailor.api.registry.v1.registry_pb2 import GetSpecialistResponse, ListSpecialistsRequest
from tailor.api.synthetic.v1.synthesis_pb2 import (
    ListSamplesRequest,
    ListSynthesesRequest,
    Sample,
    Synthesis,
)
from tailor.columns import columns
from tailor.list_columns import SPECIALISTS, SYNTHESES

# Per call of synthetic.
MAX_SAMPLES = 100
SAMPLES = columns(Sample, "state, mark, language")
SERVES = (
    ("adapter", "an adapter"),
    ("overridden", "an adapter, overridden"),
    ("base", "the base"),
    ("nothing", "nothing"),
)


def list_specialists(services: Services, visitor: Visitor, parameters: Parameters) -> ListAnswer[GetSpecialistResponse]:
    """Specialists by name."""
    spec = ListSpec(
        path="/specialists",
        noun="specialists",
        columns=to_columns(SPECIALISTS, "name, serves, generation, base, pipeline, Next round, changed, (Links)"),
        choices=(
            ListFilter("serves", "Serves", SERVES),
            by_enum(GetSpecialistResponse, "specialist.promotion"),
        ),
        first="first",
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
    spec = ListSpec(
        path="/syntheses",
        noun="syntheses",
        columns=to_columns(
            SYNTHESES, "synthesis, specialist, task, state, accepted, waiting, refused, target, tokens, cost, created"
        ),
        choices=(by_enum(Synthesis, "state"),),
    )
    return read_of_specialists(
        services, visitor, spec, parameters, services.syntheses.ListSyntheses, ListSynthesesRequest(), "spec.specialist"
    )


def list_samples(services: Services, synthesis_id: str, parameters: Parameters) -> ListAnswer[Sample]:
    """The samples of a synthesis that the visitor may see, in the order in which they were made."""
    spec = ListSpec(
        path=f"/syntheses/{synthesis_id}",
        noun="samples",
        columns=to_columns(SAMPLES, "state, mark, language"),
        choices=(ListFilter("state", "State", to_plain_options(("pending", "accepted", "rejected", "refused"))),),
        first="first",
    )

    request = ListSamplesRequest(synthesis_id=synthesis_id, page_size=MAX_SAMPLES)
    return read_messages(spec, parameters, services.syntheses.ListSamples, request)
