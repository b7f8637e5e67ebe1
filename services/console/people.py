"""People and their invitations. As with keys, the console refuses what the registry would refuse to the visitor's own key."""

from functools import partial

from services.console.domain import GIVEN_ROLES, InvitationTerms, Permission, Visitor
from services.console.ports import Services
from services.console.reads import read_people, scan
from tailor.api.registry.v1 import people_pb2
from tailor.codec import encode
from tailor.errors import InvalidArgument, NotFound, Reason


def invite(services: Services, visitor: Visitor, terms: InvitationTerms) -> people_pb2.InvitePersonResponse:
    """Invite a person. Raises InvalidArgument or NotFound if they could use more specialists than the visitor."""
    visitor.require(Permission.PEOPLE)
    if visitor.specialists and not terms.specialists:
        raise InvalidArgument(
            Reason.INVALID_PERSON,
            "You may use some specialists only, so a person whom you invite must be limited too.",
            field_violations={"specialists": "must name at least one of your own"},
        )
    if terms.role not in GIVEN_ROLES:
        raise InvalidArgument(
            Reason.INVALID_PERSON,
            "The console does not give this role; `tailor person invite NAME --role ROLE` does, with a key that has it.",
            field_violations={"role": f"must be one of {', '.join(GIVEN_ROLES)}"},
        )
    for specialist in terms.specialists:
        visitor.require_specialist(specialist)
    return services.people.InvitePerson(encode(people_pb2.InvitePersonRequest, terms, invited_by=visitor.key_id))


def renew(services: Services, visitor: Visitor, person_id: str) -> people_pb2.RenewInvitationResponse:
    """Invite a person again. Raises NotFound for a person who is unknown, removed, or may use more than the visitor."""
    _check(services, visitor, person_id)
    request = people_pb2.RenewInvitationRequest(person_id=person_id, invited_by=visitor.key_id)
    return services.people.RenewInvitation(request)


def remove(services: Services, visitor: Visitor, person_id: str) -> None:
    """Remove a person. Raises NotFound for a person who is unknown or may use more than the visitor."""
    _check(services, visitor, person_id)
    services.people.RemovePerson(people_pb2.RemovePersonRequest(person_id=person_id, removed_by=visitor.key_id))


def _check(services: Services, visitor: Visitor, person_id: str) -> None:
    visitor.require(Permission.PEOPLE)
    people = scan(partial(read_people, services)) if visitor.specialists else ()
    managed = {person.person_id for person in people if visitor.may_grant(person.specialists)}
    if visitor.specialists and person_id not in managed:
        raise NotFound(Reason.UNKNOWN_PERSON, "This person does not exist, or you do not have access to them.")
