"""Syntheses and their samples: one function per page or command."""

from dataclasses import dataclass

from services.console.domain import Page, Visitor
from services.console.handlers import ServiceAnswer, call
from services.console.ports import Services
from tailor.api.synthetic.v1.synthesis_pb2 import Sample, Synthesis
from tailor.errors import NotFound, Reason


@dataclass(frozen=True)
class SamplesPage:
    """A synthesis with a page of its samples."""

    synthesis: Synthesis
    samples: Page[Sample]


def list_syntheses(services: Services, visitor: Visitor, token: str) -> ServiceAnswer[Page[Synthesis]]:
    """A page of syntheses, newest first."""
    answer = call("synthetic", lambda: services.syntheses.list_syntheses(token), Page[Synthesis]())
    items = tuple(item for item in answer.value.items if visitor.may_use(item.spec.specialist))
    return ServiceAnswer(Page(items, answer.value.next_token), answer.failure)


def get_samples(
    services: Services, visitor: Visitor, synthesis_id: str, state: str, token: str
) -> ServiceAnswer[SamplesPage | None]:
    """A synthesis and its samples of a state, or all if it is empty. Raises NotFound if it is not visible to the visitor."""

    def find() -> SamplesPage:
        synthesis = _find_visible(services, visitor, synthesis_id)
        return SamplesPage(synthesis, services.syntheses.list_samples(synthesis_id, state, token))

    return call("synthetic", find, None)


def review_sample(services: Services, visitor: Visitor, synthesis_id: str, row_id: str, *, accept: bool) -> None:
    """Record the visitor's decision about a row."""
    _find_visible(services, visitor, synthesis_id)
    services.syntheses.review_sample(synthesis_id, row_id, accept=accept)


def _find_visible(services: Services, visitor: Visitor, synthesis_id: str) -> Synthesis:
    synthesis = services.syntheses.get_synthesis(synthesis_id)
    if not visitor.may_use(synthesis.spec.specialist):
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "This synthesis does not exist, or you do not have access to it.")
    return synthesis
