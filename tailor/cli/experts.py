"""Experts of a specialist together: how far they agree, their mean marks, and what their comments ask for again and again."""

from collections.abc import Iterator
from typing import Annotated

import typer

from tailor.api.registry.v1 import panel_pb2, registry_pb2
from tailor.cli.options import SpecialistName
from tailor.cli.session import CommandSession
from tailor.cli.specialists import list_changes
from tailor.cli.tables import emit_list
from tailor.columns import columns
from tailor.errors import InvalidArgument, Reason

COMPUTE_SECONDS = 60.0


def agreement(session: CommandSession, specialist: SpecialistName) -> None:
    """Show how far experts agree: Krippendorff's alpha by criterion, of the panel and of each expert with the others.

    1 is perfect agreement, 0 is what chance gives. Only drafts that at least two experts judged count.
    """
    request = panel_pb2.GetAgreementRequest(specialist=specialist)
    answer = session.connections.panel.GetAgreement(request, timeout=COMPUTE_SECONDS)
    found = [item for item in answer.agreement if item.units]
    empty = "No draft was judged by two experts yet, so there is no agreement to measure."
    remarks = [f"{answer.judgements} judgements by {answer.experts} experts"]
    emit_list(session, found, AGREEMENT, document=answer, empty=empty, remarks=remarks)


def _describe_interval(value: float, item: panel_pb2.CriterionAgreement | panel_pb2.PanelMean) -> str:
    return f"{value:.2f}" + (f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else "")


AGREEMENT = columns(
    panel_pb2.CriterionAgreement,
    "criterion, who=expert_id or 'the panel'",
    ("alpha, 95 % interval", lambda item: _describe_interval(item.alpha, item) if item.HasField("alpha") else "-"),
    "units",
)


def panel(session: CommandSession, specialist: SpecialistName) -> None:
    """Show the mean marks of drafts, 1 to 5, by criterion, month and adapter. Intervals are 95 % ones over drafts."""
    request = panel_pb2.GetPanelReportRequest(specialist=specialist)
    answer = session.connections.panel.GetPanelReport(request, timeout=COMPUTE_SECONDS)
    remarks = [f"{answer.judgements} judgements with marks"]
    emit_list(session, answer.means, MEANS, document=answer, empty="No draft has a mark yet.", remarks=remarks)


MEANS = columns(
    panel_pb2.PanelMean,
    "criterion, month, adapter=adapter_digest or 'base'",
    ("mean, 95 % interval", lambda item: _describe_interval(item.mean, item)),
    "drafts, experts, question",
)


def guidelines(
    session: CommandSession,
    specialist: SpecialistName,
    *,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Max guidelines to show.")] = 20,
    take: Annotated[
        int, typer.Option(min=0, help="Add the guideline with this number to the specialist's guidelines.")
    ] = 0,
    text: Annotated[str, typer.Option(help="With --take: the words to add instead of the experts' own.")] = "",
) -> None:
    """Show what experts' comments ask for again and again, as proposed guidelines, and take one over.

    Guidelines are in the prompts of `few_shot`, of the judge model, and of the teacher that revises drafts by comments.
    """
    request = panel_pb2.ProposeGuidelinesRequest(specialist=specialist, page_size=limit)
    answer = session.connections.panel.ProposeGuidelines(request, timeout=COMPUTE_SECONDS)
    if take:
        _take_over(session, specialist, text or _find(answer, take))
    else:
        numbered = list(enumerate(answer.guidelines, start=1))
        empty = "No two comments ask for the same yet."
        emit_list(session, numbered, GUIDELINES, document=answer, empty=empty, remarks=_list_remarks(answer))


def _find(answer: panel_pb2.ProposeGuidelinesResponse, number: int) -> str:
    if number > len(answer.guidelines):
        raise InvalidArgument(
            Reason.INVALID_ARGUMENT,
            f"There are {len(answer.guidelines)} proposed guidelines; --take must be one of them.",
        )
    return answer.guidelines[number - 1].text


def _take_over(session: CommandSession, name: str, line: str) -> None:
    """Add a line to the guidelines of the current definition. Fails if the definition changes meanwhile."""
    registry = session.connections.registry
    current = registry.GetSpecialist(registry_pb2.GetSpecialistRequest(name=name)).specialist
    evaluation = current.evaluation
    evaluation.guidelines = "\n".join(filter(None, (evaluation.guidelines.strip(), line.strip())))
    answer = registry.UpdateSpecialist(registry_pb2.UpdateSpecialistRequest(specialist=current))

    revision = f"Specialist {name} has revision {answer.specialist.revision}."
    session.output.emit(answer, list_changes(answer.changes), revision)


def _list_remarks(answer: panel_pb2.ProposeGuidelinesResponse) -> Iterator[str]:
    yield f"{answer.comments} comments"
    for number, item in enumerate(answer.guidelines, start=1):
        for example in item.examples:
            yield f"{number}: {example.text} ({example.judgement_id})"


GUIDELINES = columns(None, "number=0, guideline=1.text, comments=1.comments, experts=1.experts, taken over=1.adopted")
