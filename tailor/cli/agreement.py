"""`tailor specialist agreement`: how far a specialist's experts agree."""

from tailor.api.registry.v1 import panel_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.columns import columns, emit_list
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession

COMPUTE_SECONDS = 60.0


def agreement(session: CommandSession, specialist: SpecialistName) -> None:
    """Show how far experts agree: Krippendorff's alpha by criterion, of the panel and of each expert with the others.

    1 is perfect agreement, 0 is what chance gives. Only drafts that at least two experts judged count.
    """
    request = panel_pb2.GetAgreementRequest(specialist=specialist)
    answer = unary("registry", session.connections.panel.GetAgreement, request, COMPUTE_SECONDS)
    emit_list(
        session,
        [item for item in answer.agreement if item.units],
        COLUMNS,
        document=to_dict(answer),
        empty="No draft was judged by two experts yet, so there is no agreement to measure.",
        remarks=lambda console: console.print(f"{answer.judgements} judgements by {answer.experts} experts"),
    )


def _describe(item: panel_pb2.CriterionAgreement) -> str:
    if not item.HasField("alpha"):
        return "-"
    return f"{item.alpha:.2f}" + (f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else "")


COLUMNS = columns(
    "criterion", ("who", lambda item: item.expert_id or "the panel"), ("alpha, 95 % interval", _describe), "units"
)
