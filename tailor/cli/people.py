"""`tailor person`: who may sign in to the console."""

from typing import Annotated

import typer
from rich.console import Console

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2
from tailor.cli import ids
from tailor.cli.calls import pages, unary
from tailor.cli.columns import columns, emit_items
from tailor.cli.keys import KeyRole
from tailor.cli.messages import to_dict
from tailor.cli.output import shows
from tailor.cli.session import CommandSession

Answer = people_pb2.InvitePersonResponse | people_pb2.RenewInvitationResponse
PersonId = Annotated[
    str, typer.Argument(metavar="ID", help="The person's id, `per_...`, or its first digits.", callback=ids.person_id)
]
Days = Annotated[int, typer.Option(min=1, max=30, help="Days until the invitation expires.")]


def invite(  # noqa: PLR0917 - options of a command
    session: CommandSession,
    name: Annotated[str, typer.Argument(help="The person's name, as the console shows it.")],
    role: Annotated[KeyRole, typer.Option(help="The person's role.")] = KeyRole.EXPERT,
    specialist: Annotated[
        list[str] | None, typer.Option(help="A specialist that the person may use; repeatable. By default, all.")
    ] = None,
    mail: Annotated[
        str, typer.Option(help="Mail address, for a person who signs in by your OpenID provider. They get no code.")
    ] = "",
    days: Days = 7,
) -> None:
    """Invite a person. The code of the invitation is shown only once."""
    request = people_pb2.InvitePersonRequest(
        name=name,
        mail=mail,
        role=common_pb2.Role.Value(f"ROLE_{role.name}"),
        specialists=specialist or [],
        days=days,
    )
    answer = unary("registry", session.connections.people.InvitePerson, request)
    session.output.emit(to_dict(answer), lambda console: _render(console, answer))


def renew(session: CommandSession, person: PersonId, days: Days = 7) -> None:
    """Invite a person again who lost their secret, or whose invitation expired. Their sessions end."""
    request = people_pb2.RenewInvitationRequest(person_id=person, days=days)
    answer = unary("registry", session.connections.people.RenewInvitation, request)
    session.output.emit(to_dict(answer), lambda console: _render(console, answer))


def list_people(session: CommandSession) -> None:
    """List people, newest first."""
    stub = session.connections.people
    items = list(pages("registry", stub.ListPeople, people_pb2.ListPeopleRequest(), "people"))
    emit_items(session, "people", items, COLUMNS)


COLUMNS = columns(
    "person=person_id",
    "name",
    "mail",
    "role",
    ("specialists", lambda person: ", ".join(person.specialists) or "all"),
    "state",
    "invited by",
    "invitation expires=invitation_expire_time",
)


def remove(session: CommandSession, person: PersonId) -> None:
    """Remove a person. Their sessions end within 3 seconds, and their name and mail address are deleted."""
    request = people_pb2.RemovePersonRequest(person_id=person)
    answer = unary("registry", session.connections.people.RemovePerson, request)
    session.output.emit(to_dict(answer), shows(f"{answer.person.person_id} is removed."))


def _render(console: Console, answer: Answer) -> None:
    until = answer.person.invitation_expire_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
    console.print(f"{answer.person.person_id} is invited until {until} UTC.")
    if answer.code:
        console.print(
            "Send them the link to your console's page /invitation with # and this code; it is not shown again:"
        )
        console.print(answer.code, soft_wrap=True, markup=False)
    else:
        console.print("They sign in on the console by your OpenID provider.")
