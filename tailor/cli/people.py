"""`tailor person`: who may sign in to the console."""

from collections.abc import Iterator
from typing import Annotated

import typer

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2
from tailor.cli import ids
from tailor.cli.keys import KeyRole
from tailor.cli.options import listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages
from tailor.list_columns import PEOPLE

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
        name=name, mail=mail, role=common_pb2.Role.Value(f"ROLE_{role.name}"), specialists=specialist or [], days=days
    )
    answer = session.connections.people.InvitePerson(request)
    session.output.emit(answer, _describe(answer))


def renew(session: CommandSession, person: PersonId, days: Days = 7) -> None:
    """Invite a person again who lost their secret, or whose invitation expired. Their sessions end."""
    answer = session.connections.people.RenewInvitation(people_pb2.RenewInvitationRequest(person_id=person, days=days))
    session.output.emit(answer, _describe(answer))


@listed
def list_people(session: CommandSession, request: people_pb2.ListPeopleRequest) -> None:
    """List people, newest first."""
    shown = PEOPLE.pick("person, name, mail, role, specialists, state, invited by, invitation expires")
    emit_pages(session, session.connections.people.ListPeople, request, shown)


def remove(session: CommandSession, person: PersonId) -> None:
    """Remove a person. Their sessions end within 3 seconds, and their name and mail address are deleted."""
    answer = session.connections.people.RemovePerson(people_pb2.RemovePersonRequest(person_id=person))
    session.output.emit(answer, f"{answer.person.person_id} is removed.")


def _describe(answer: Answer) -> Iterator[str]:
    until = answer.person.invitation_expire_time.ToDatetime().strftime("%Y-%m-%d %H:%M")
    yield f"{answer.person.person_id} is invited until {until} UTC."
    if answer.code:
        yield "Send them the link to your console's page /invitation with # and this code; it is not shown again:"
    yield answer.code or "They sign in on the console by your OpenID provider."
