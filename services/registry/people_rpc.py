"""The gRPC methods of people, their invitations and their sessions."""

import grpc

from services.registry.adapters.sql import Begin
from services.registry.handlers import keys, people, sessions
from services.registry.people_domain import OpenIdAccount, Person, PersonTerms, Session
from services.registry.queries import Queries
from services.registry.rights import may_manage, visitor_or_caller
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2, people_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import InvalidArgument, PermissionDenied, Reason
from tailor.rpc.auth import current_caller
from tailor.wire import enum_name, from_datetime

Context = grpc.ServicerContext


class PeopleServicer(people_pb2_grpc.PeopleServiceServicer):
    """Translates calls."""

    def __init__(self, begin: Begin, queries: Queries) -> None:
        self._begin = begin
        self._queries = queries

    def InvitePerson(
        self, request: people_pb2.InvitePersonRequest, context: Context
    ) -> people_pb2.InvitePersonResponse:
        del context
        terms = _to_terms(request)
        _check_rights(terms.role, terms.specialists)
        invited_by = visitor_or_caller(request.invited_by)
        person, code = people.invite_person(self._begin, terms, current_caller().may_use, invited_by)
        return people_pb2.InvitePersonResponse(person=_from_person(person), code=code)

    def RenewInvitation(
        self, request: people_pb2.RenewInvitationRequest, context: Context
    ) -> people_pb2.RenewInvitationResponse:
        del context
        known = people.find_person(self._begin, request.person_id, _may_manage)
        _check_rights(known.role, known.specialists)
        invited_by = visitor_or_caller(request.invited_by)
        person, code = people.renew_invitation(self._begin, request.person_id, request.days, _may_manage, invited_by)
        return people_pb2.RenewInvitationResponse(person=_from_person(person), code=code)

    def ListPeople(self, request: people_pb2.ListPeopleRequest, context: Context) -> people_pb2.ListPeopleResponse:
        del context
        page = self._queries.list_people(request, _may_manage)
        return people_pb2.ListPeopleResponse(people=map(_from_person, page.items), next_page_token=page.next_token)

    def RemovePerson(
        self, request: people_pb2.RemovePersonRequest, context: Context
    ) -> people_pb2.RemovePersonResponse:
        del context
        removed_by = visitor_or_caller(request.removed_by)
        person = people.remove_person(self._begin, request.person_id, _may_manage, removed_by)
        return people_pb2.RemovePersonResponse(person=_from_person(person))

    def AcceptInvitation(
        self, request: people_pb2.AcceptInvitationRequest, context: Context
    ) -> people_pb2.AcceptInvitationResponse:
        del context
        person, secret = people.accept_invitation(self._begin, request.code_sha256)
        return people_pb2.AcceptInvitationResponse(person=_from_person(person), secret=secret)

    def BeginSession(
        self, request: people_pb2.BeginSessionRequest, context: Context
    ) -> people_pb2.BeginSessionResponse:
        del context
        session, secret = self._begin_session(request)
        return people_pb2.BeginSessionResponse(session=_from_session(session), session_secret=secret)

    def _begin_session(self, request: people_pb2.BeginSessionRequest) -> tuple[Session, str]:
        match request.WhichOneof("credential"):
            case "key_sha256":
                return sessions.begin_with_key(self._begin, request.key_sha256)
            case "secret_sha256":
                return sessions.begin_with_secret(self._begin, request.secret_sha256)
            case "identity":
                return sessions.begin_with_identity(self._begin, decode(OpenIdAccount, request.identity))
        raise InvalidArgument(Reason.INVALID_REQUEST, "Name a key, a secret or an identity.")

    def GetSession(self, request: people_pb2.GetSessionRequest, context: Context) -> people_pb2.GetSessionResponse:
        del context
        session = sessions.get_session(self._begin, request.session_sha256)
        return people_pb2.GetSessionResponse(session=_from_session(session))

    def EndSession(self, request: people_pb2.EndSessionRequest, context: Context) -> people_pb2.EndSessionResponse:
        del context
        sessions.end_session(self._begin, request.session_sha256)
        return people_pb2.EndSessionResponse()


def _to_terms(request: people_pb2.InvitePersonRequest) -> PersonTerms:
    if request.role not in common_pb2.Role.values() or request.role == common_pb2.ROLE_UNSPECIFIED:
        violations = {"role": "must be one of the five roles"}
        raise InvalidArgument(Reason.INVALID_PERSON, "The person has no role.", field_violations=violations)
    role = enum_name(common_pb2.Role, request.role)
    return decode(PersonTerms, request, role=role)


def _check_rights(role: str, specialists: tuple[str, ...]) -> None:
    """Raises PermissionDenied or InvalidArgument if the caller may not give a person this role, or as many specialists."""
    caller = current_caller()
    keys.check_role(role, caller.role)
    if caller.methods or caller.calls_per_minute:
        raise PermissionDenied(
            Reason.KEY_IS_LIMITED,
            "A key limited to methods or to a rate cannot invite people: they would not be limited.",
        )
    if caller.specialists and not specialists:
        raise InvalidArgument(
            Reason.INVALID_PERSON,
            "Your key is limited to some specialists, so a person whom you invite must be too.",
            field_violations={"specialists": "must name at least one of your own"},
        )


def _may_manage(person: Person) -> bool:
    return may_manage(person.role, person.specialists)


def _from_person(person: Person) -> people_pb2.Person:
    return encode(people_pb2.Person, person, role=common_pb2.Role.Value(person.role), state=_state(person))


def _state(person: Person) -> people_pb2.PersonState.ValueType:
    if person.removed:
        return people_pb2.PERSON_STATE_REMOVED
    return people_pb2.PERSON_STATE_ACTIVE if person.is_active else people_pb2.PERSON_STATE_INVITED


def _from_session(session: Session) -> people_pb2.Session:
    role, expire_time = common_pb2.Role.Value(session.holder.role), from_datetime(session.expire_time)
    return encode(people_pb2.Session, session.holder, role=role, expire_time=expire_time)
