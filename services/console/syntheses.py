"""Syntheses and their samples: one function per page or command."""

from services.console.domain import Visitor
from services.console.handlers import ServiceAnswer, call
from services.console.ports import Services
from tailor.api.synthetic.v1.synthesis_pb2 import (
    GetSynthesisRequest,
    ReviewSamplesRequest,
    SampleDecision,
    Synthesis,
)
from tailor.errors import NotFound, Reason


def get_synthesis(services: Services, visitor: Visitor, synthesis_id: str) -> ServiceAnswer[Synthesis | None]:
    """A synthesis. Raises NotFound if it is not visible to the visitor."""
    return call("synthetic", lambda: _find_visible(services, visitor, synthesis_id), None)


def review_sample(services: Services, visitor: Visitor, synthesis_id: str, row_id: str, *, accept: bool) -> None:
    """Record the visitor's decision about a row."""
    _find_visible(services, visitor, synthesis_id)
    decision = SampleDecision(row_id=row_id, accept=accept)
    services.syntheses.ReviewSamples(ReviewSamplesRequest(synthesis_id=synthesis_id, decisions=[decision]))


def _find_visible(services: Services, visitor: Visitor, synthesis_id: str) -> Synthesis:
    synthesis = services.syntheses.GetSynthesis(GetSynthesisRequest(synthesis_id=synthesis_id)).synthesis
    if not visitor.may_use(synthesis.spec.specialist):
        raise NotFound(Reason.UNKNOWN_SYNTHESIS, "This synthesis does not exist, or you do not have access to it.")
    return synthesis
