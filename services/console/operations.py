"""What operators change and decide: definitions, overrides, approvals, pins of leaderboards, people and their invitations.

The registry admits the console itself to these calls, so the console refuses what the registry would refuse to the visitor's own key, and
names the visitor's key, which stays on record.
"""

from services.console.clients import Services
from services.console.domain import GIVEN_ROLES, InvitationTerms, Permission, Visitor
from services.console.handlers import ServiceAnswer, call, list_specialists, require_adapter
from services.console.reads import scan
from tailor.api.evaluation.v1.evaluation_pb2 import CompareEvaluationsRequest, CompareEvaluationsResponse
from tailor.api.events.v1.models_pb2 import SpecialistChanged, SpecialistServing
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.api.registry.v1.panel_pb2 import ProposeGuidelinesRequest, ProposeGuidelinesResponse
from tailor.api.registry.v1.registry_pb2 import (
    GetLeaderboardResponse,
    GetSpecialistResponse,
    UpdateSpecialistResponse,
)
from tailor.api.synthetic.v1.synthesis_pb2 import CountCommentsRequest, CountCommentsResponse
from tailor.codec import encode
from tailor.errors import InvalidArgument, NotFound, Reason


def get_specialist(services: Services, visitor: Visitor, name: str) -> GetSpecialistResponse:
    """A specialist. Raises NotFound if it is unknown or not visible to the visitor, Unavailable without the registry."""
    answer = list_specialists(services, visitor)
    specialist = next((item for item in answer.value if item.specialist.name == name), None)
    if specialist is None:
        message = answer.failure.message if answer.failure else "This specialist does not exist, or you may not use it."
        raise NotFound(Reason.UNKNOWN_SPECIALIST, message)
    return specialist


def create_specialist(services: Services, visitor: Visitor, definition: SpecialistChanged, attempt: str) -> bool:
    """Define a specialist; False if it existed with the same definition. Raises AlreadyExists, InvalidArgument by field."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(definition.name)
    request = registry_pb2.CreateSpecialistRequest(specialist=definition, request_id=attempt)
    return services.registry.CreateSpecialist(request).created


def update_specialist(
    services: Services, visitor: Visitor, definition: SpecialistChanged, *, validate_only: bool
) -> UpdateSpecialistResponse:
    """Replace a definition, or only show the changes. Raises Aborted unless its revision is the current one, InvalidArgument by field."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(definition.name)
    request = registry_pb2.UpdateSpecialistRequest(specialist=definition, validate_only=validate_only)
    return services.registry.UpdateSpecialist(request)


def propose_guidelines(services: Services, visitor: Visitor, name: str) -> ServiceAnswer[ProposeGuidelinesResponse]:
    """What experts' comments ask for again and again. Raises NotFound for a specialist that is not visible to the visitor."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(name)
    request = ProposeGuidelinesRequest(specialist=name)
    return call("registry", lambda: services.panel.ProposeGuidelines(request), ProposeGuidelinesResponse())


def count_comments(services: Services, visitor: Visitor, name: str) -> ServiceAnswer[CountCommentsResponse]:
    """What became of a specialist's comments. Raises NotFound for a specialist that is not visible to the visitor."""
    visitor.require(Permission.SYNTHESES)
    visitor.require_specialist(name)
    request = CountCommentsRequest(specialist=name)
    return call("synthetic", lambda: services.syntheses.CountComments(request), CountCommentsResponse())


def delete_specialist(services: Services, visitor: Visitor, name: str, reason: str) -> None:
    """Delete a specialist. Idempotent."""
    visitor.require(Permission.MANAGE_SPECIALISTS)
    visitor.require_specialist(name)
    request = registry_pb2.DeleteSpecialistRequest(name=name, reason=reason, decided_by=visitor.key_id)
    services.registry.DeleteSpecialist(request)


def override(  # noqa: PLR0917 - fields of a form
    services: Services, visitor: Visitor, specialist: str, digest: str, generation: int, reason: str
) -> SpecialistServing:
    """Make an adapter serve although it did not pass the gate. Raises Aborted unless `generation` is the current one."""
    visitor.require(Permission.PROMOTE)
    visitor.require_specialist(specialist)
    request = registry_pb2.PromoteRequest(
        specialist=specialist,
        adapter_digest=digest,
        expected_generation=generation,
        override=True,
        reason=reason,
        decided_by=visitor.key_id,
    )
    return services.registry.Promote(request).serving


def approve(services: Services, visitor: Visitor, digest: str, reason: str) -> SpecialistServing:
    """Let a waiting adapter serve, or start its canary. Raises NotFound if it is not visible to the visitor."""
    visitor.require(Permission.PROMOTE)
    require_adapter(services, visitor, digest)
    request = registry_pb2.ApproveAdapterRequest(adapter_digest=digest, reason=reason, decided_by=visitor.key_id)
    return services.registry.ApproveAdapter(request).serving


def decline(services: Services, visitor: Visitor, digest: str, reason: str) -> None:
    """End an adapter's wait. Raises NotFound if it is not visible to the visitor."""
    visitor.require(Permission.PROMOTE)
    require_adapter(services, visitor, digest)
    request = registry_pb2.DeclineAdapterRequest(adapter_digest=digest, reason=reason, decided_by=visitor.key_id)
    services.registry.DeclineAdapter(request)


def get_leaderboard(
    services: Services, visitor: Visitor, specialist: str, metric: str
) -> ServiceAnswer[GetLeaderboardResponse | None]:
    """A specialist's leaderboard. Raises NotFound if it is not visible to the visitor."""
    visitor.require_specialist(specialist)
    request = registry_pb2.GetLeaderboardRequest(specialist=specialist, metric=metric)
    return call("registry", lambda: services.registry.GetLeaderboard(request), None)


def pin_entry(services: Services, visitor: Visitor, specialist: str, entry: str, *, pinned: bool) -> None:
    """Pin an entry of a leaderboard, or stop."""
    visitor.require(Permission.PROMOTE)
    visitor.require_specialist(specialist)
    services.registry.PinEntry(registry_pb2.PinEntryRequest(specialist=specialist, entry=entry, pinned=pinned))


def compare_evaluations(
    services: Services, visitor: Visitor, request: CompareEvaluationsRequest
) -> ServiceAnswer[CompareEvaluationsResponse | None]:
    """Two models row by row. Raises NotFound if an adapter is not visible to the visitor."""
    for side in (request.first, request.second):
        require_adapter(services, visitor, side.adapter_digest)
    return call("evaluation", lambda: services.evaluation.CompareEvaluations(request), None)


def invite_person(services: Services, visitor: Visitor, terms: InvitationTerms) -> people_pb2.InvitePersonResponse:
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


def renew_invitation(services: Services, visitor: Visitor, person_id: str) -> people_pb2.RenewInvitationResponse:
    """Invite a person again. Raises NotFound for a person who is unknown, removed, or may use more than the visitor."""
    _check_person(services, visitor, person_id)
    request = people_pb2.RenewInvitationRequest(person_id=person_id, invited_by=visitor.key_id)
    return services.people.RenewInvitation(request)


def remove_person(services: Services, visitor: Visitor, person_id: str) -> None:
    """Remove a person. Raises NotFound for a person who is unknown or may use more than the visitor."""
    _check_person(services, visitor, person_id)
    services.people.RemovePerson(people_pb2.RemovePersonRequest(person_id=person_id, removed_by=visitor.key_id))


def _check_person(services: Services, visitor: Visitor, person_id: str) -> None:
    visitor.require(Permission.PEOPLE)
    people = scan(services.people.ListPeople, people_pb2.ListPeopleRequest()) if visitor.specialists else ()
    managed = {person.person_id for person in people if visitor.may_grant(person.specialists)}
    if visitor.specialists and person_id not in managed:
        raise NotFound(Reason.UNKNOWN_PERSON, "This person does not exist, or you do not have access to them.")
