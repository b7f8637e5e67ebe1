"""Experts of a specialist together: how far they agree, their mean marks, and what their comments ask for again and again."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.registry.v1 import panel_pb2, registry_pb2
from tailor.cli.adapters import SpecialistName
from tailor.cli.calls import unary
from tailor.cli.columns import columns, emit_list, show_field
from tailor.cli.messages import to_dict
from tailor.cli.session import CommandSession
from tailor.cli.specialist_changes import print_changes
from tailor.cli.whole_words import Digest
from tailor.errors import InvalidArgument, Reason

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
        AGREEMENT,
        document=to_dict(answer),
        empty="No draft was judged by two experts yet, so there is no agreement to measure.",
        remarks=lambda console: console.print(f"{answer.judgements} judgements by {answer.experts} experts"),
    )


def _describe_alpha(item: panel_pb2.CriterionAgreement) -> str:
    if not item.HasField("alpha"):
        return "-"
    return f"{item.alpha:.2f}" + (f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else "")


AGREEMENT = columns(
    "criterion", ("who", lambda item: item.expert_id or "the panel"), ("alpha, 95 % interval", _describe_alpha), "units"
)


def panel(session: CommandSession, specialist: SpecialistName) -> None:
    """Show the mean marks of drafts, 1 to 5, by criterion, month and adapter. Intervals are 95 % ones over drafts."""
    request = panel_pb2.GetPanelReportRequest(specialist=specialist)
    answer = unary("registry", session.connections.panel.GetPanelReport, request, COMPUTE_SECONDS)
    emit_list(
        session,
        answer.means,
        MEANS,
        document=to_dict(answer),
        empty="No draft has a mark yet.",
        remarks=lambda console: console.print(f"{answer.judgements} judgements with marks", highlight=False),
    )


def _describe_mean(item: panel_pb2.PanelMean) -> str:
    return f"{item.mean:.2f}" + (f" ({item.low:.2f} to {item.high:.2f})" if item.HasField("low") else "")


MEANS = columns(
    "criterion",
    "month",
    ("adapter", lambda item: Digest(item.adapter_digest) if item.adapter_digest else "base"),
    ("mean, 95 % interval", _describe_mean),
    "drafts",
    "experts",
    "question",
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
    answer = unary("registry", session.connections.panel.ProposeGuidelines, request, COMPUTE_SECONDS)
    if take:
        _take_over(session, specialist, text or _find(answer, take))
    else:
        emit_list(
            session,
            list(enumerate(answer.guidelines, start=1)),
            GUIDELINES,
            document=to_dict(answer),
            empty="No two comments ask for the same yet.",
            remarks=lambda console: _print_remarks(console, answer),
        )


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
    current = unary("registry", registry.GetSpecialist, registry_pb2.GetSpecialistRequest(name=name)).specialist
    evaluation = current.evaluation
    evaluation.guidelines = "\n".join(filter(None, (evaluation.guidelines.strip(), line.strip())))
    request = registry_pb2.UpdateSpecialistRequest(specialist=current)
    answer = unary("registry", registry.UpdateSpecialist, request)

    def render(console: Console) -> None:
        print_changes(console, list(answer.changes))
        console.print(f"Specialist {name} has revision {answer.specialist.revision}.")

    session.output.emit(to_dict(answer), render)


def _print_remarks(console: Console, answer: panel_pb2.ProposeGuidelinesResponse) -> None:
    console.print(f"{answer.comments} comments", highlight=False)
    for number, item in enumerate(answer.guidelines, start=1):
        for example in item.examples:
            console.print(f"{number}: {example.text} ({example.judgement_id})", markup=False, highlight=False)


GUIDELINES = columns(
    ("number", lambda row: row[0]),
    ("guideline", lambda row: row[1].text),
    ("comments", lambda row: row[1].comments),
    ("experts", lambda row: row[1].experts),
    ("taken over", lambda row: show_field(row[1], "adopted")),
)
