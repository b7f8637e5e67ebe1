"""`tailor specialist guidelines`: what experts' comments ask for again and again, and taking it over into the definition."""

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
from tailor.errors import InvalidArgument, Reason

GROUP_SECONDS = 60.0


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
    answer = unary("registry", session.connections.panel.ProposeGuidelines, request, GROUP_SECONDS)
    if take:
        _take_over(session, specialist, text or _find(answer, take))
    else:
        emit_list(
            session,
            list(enumerate(answer.guidelines, start=1)),
            COLUMNS,
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


COLUMNS = columns(
    ("number", lambda row: row[0]),
    ("guideline", lambda row: row[1].text),
    ("comments", lambda row: row[1].comments),
    ("experts", lambda row: row[1].experts),
    ("taken over", lambda row: show_field(row[1], "adopted")),
)
