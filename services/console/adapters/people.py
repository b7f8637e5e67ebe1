"""The registry's people and sessions, over gRPC."""

import grpc

from services.console.domain import InvitationTerms, Page, ProviderIdentity, Role, Visitor
from services.console.ports import Invitation, PeopleDirectory, SessionRegistry
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2, people_pb2_grpc
from tailor.rpc.channel import wire_errors
from tailor.wire import enum_name

SECONDS = 4
PAGE_SIZE = 200


class PeopleClient(PeopleDirectory):
    """People and their invitations. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = people_pb2_grpc.PeopleServiceStub(channel)

    def invite(self, terms: InvitationTerms, invited_by: str) -> Invitation:
        request = people_pb2.InvitePersonRequest(
            name=terms.name,
            mail=terms.mail,
            role=common_pb2.Role.Value(f"ROLE_{terms.role.name}"),
            specialists=terms.specialists,
            days=terms.days,
            invited_by=invited_by,
        )
        with wire_errors("registry"):
            answer = self._stub.InvitePerson(request, timeout=SECONDS)
        return Invitation(answer.person, answer.code)

    def renew(self, person_id: str, invited_by: str) -> Invitation:
        request = people_pb2.RenewInvitationRequest(person_id=person_id, invited_by=invited_by)
        with wire_errors("registry"):
            answer = self._stub.RenewInvitation(request, timeout=SECONDS)
        return Invitation(answer.person, answer.code)

    def list_people(self, token: str) -> Page[people_pb2.Person]:
        request = people_pb2.ListPeopleRequest(page_token=token, page_size=PAGE_SIZE)
        with wire_errors("registry"):
            answer = self._stub.ListPeople(request, timeout=SECONDS)
        return Page(tuple(answer.people), answer.next_page_token)

    def remove(self, person_id: str, removed_by: str) -> None:
        request = people_pb2.RemovePersonRequest(person_id=person_id, removed_by=removed_by)
        with wire_errors("registry"):
            self._stub.RemovePerson(request, timeout=SECONDS)

    def accept_invitation(self, code_sha256: str) -> people_pb2.AcceptInvitationResponse:
        request = people_pb2.AcceptInvitationRequest(code_sha256=code_sha256)
        with wire_errors("registry"):
            return self._stub.AcceptInvitation(request, timeout=SECONDS)


class SessionClient(SessionRegistry):
    """Sessions. Every call has a deadline."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = people_pb2_grpc.PeopleServiceStub(channel)

    def begin_with_key(self, secret_sha256: str) -> tuple[Visitor, str]:
        return self._begin(people_pb2.BeginSessionRequest(key_sha256=secret_sha256))

    def begin_with_secret(self, secret_sha256: str) -> tuple[Visitor, str]:
        return self._begin(people_pb2.BeginSessionRequest(secret_sha256=secret_sha256))

    def begin_with_identity(self, identity: ProviderIdentity) -> tuple[Visitor, str]:
        account = people_pb2.OpenIdIdentity(
            issuer=identity.issuer, subject=identity.subject, verified_mail=identity.verified_mail
        )
        return self._begin(people_pb2.BeginSessionRequest(identity=account))

    def _begin(self, request: people_pb2.BeginSessionRequest) -> tuple[Visitor, str]:
        with wire_errors("registry"):
            answer = self._stub.BeginSession(request, timeout=SECONDS)
        return _to_visitor(answer.session), answer.session_secret

    def get(self, session_sha256: str) -> Visitor:
        with wire_errors("registry"):
            request = people_pb2.GetSessionRequest(session_sha256=session_sha256)
            return _to_visitor(self._stub.GetSession(request, timeout=SECONDS).session)

    def end(self, session_sha256: str) -> None:
        with wire_errors("registry"):
            self._stub.EndSession(people_pb2.EndSessionRequest(session_sha256=session_sha256), timeout=SECONDS)


def _to_visitor(session: people_pb2.Session) -> Visitor:
    role = enum_name(common_pb2.Role, session.role).removeprefix("ROLE_").lower().replace("_", " ")
    return Visitor(session.name, Role(role), frozenset(session.specialists), session.holder_id)
