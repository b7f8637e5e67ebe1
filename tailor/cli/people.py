"""`tailor people`: who may sign in to the console."""

from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2
from tailor.cli import ids
from tailor.cli.calls import pages, unary
from tailor.cli.keys import KeyRole
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import shows, table
from tailor.cli.session import session_of

app = typer.Typer(
    name="people", help="Invite, list and remove the people who sign in to the console.", no_args_is_help=True
)

Answer = people_pb2.InvitePersonResponse | people_pb2.RenewInvitationResponse
PersonId = Annotated[
    str, typer.Argument(metavar="ID", help="The person's id, `per_...`, or its first digits.", callback=ids.person_id)
]
Days = Annotated[int, typer.Option(min=1, max=30, help="Days until the invitation expires.")]


@app.command()
def invite(  # noqa: PLR0917 - options of a command
    context: typer.Context,
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
    session = session_of(context)
    request = people_pb2.InvitePersonRequest(
        name=name,
        mail=mail,
        role=common_pb2.Role.Value(f"ROLE_{role.name}"),
        specialists=specialist or [],
        days=days,
    )
    answer = unary("registry", session.connections.people.InvitePerson, request)
    session.output.emit(to_dict(answer), lambda console: _render(console, answer))


@app.command()
def renew(context: typer.Context, person: PersonId, days: Days = 7) -> None:
    """Invite a person again who lost their secret, or whose invitation expired. Their sessions end."""
    session = session_of(context)
    request = people_pb2.RenewInvitationRequest(person_id=person, days=days)
    answer = unary("registry", session.connections.people.RenewInvitation, request)
    session.output.emit(to_dict(answer), lambda console: _render(console, answer))


@app.command("list")
def list_people(context: typer.Context) -> None:
    """List people, newest first."""
    session = session_of(context)
    stub = session.connections.people
    items = list(pages("registry", stub.ListPeople, people_pb2.ListPeopleRequest(), "people"))
    columns = ("person", "name", "mail", "role", "specialists", "state", "invited by", "invitation expires")
    rows = [
        (
            person.person_id,
            Text(person.name),
            Text(person.mail),
            short_enum(common_pb2.Role, person.role, "ROLE_"),
            ", ".join(person.specialists) or "all",
            short_enum(people_pb2.PersonState, person.state, "PERSON_STATE_"),
            person.invited_by,
            person.invitation_expire_time.ToJsonString() if person.HasField("invitation_expire_time") else "",
        )
        for person in items
    ]
    session.output.emit({"people": [to_dict(person) for person in items]}, shows(table("", columns, rows)))


@app.command()
def remove(context: typer.Context, person: PersonId) -> None:
    """Remove a person. Their sessions end within 3 seconds, and their name and mail address are deleted."""
    session = session_of(context)
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
