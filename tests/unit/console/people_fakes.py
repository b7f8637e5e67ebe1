"""The registry's people and sessions in memory."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from services.console.domain import InvitationTerms, ProviderIdentity, Role
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2, people_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import NotFound, Reason
from tailor.wire import from_datetime
from tests.unit.console.fake_registry import FakeRegistry


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass
class FakePeople(people_pb2_grpc.PeopleServiceServicer):
    """People, and the sessions of keys and of people."""

    registry: FakeRegistry
    people: list[people_pb2.Person] = field(default_factory=list)
    # Credentials to ids of people: hashes of codes and of secrets.
    codes: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    # Hash of a session's secret to the hash of a key, or the id of a person.
    sessions: dict[str, str] = field(default_factory=dict)
    invited: list[tuple[InvitationTerms, str]] = field(default_factory=list)
    removed: list[tuple[str, str]] = field(default_factory=list)
    identities: list[ProviderIdentity] = field(default_factory=list)

    def InvitePerson(self, request: Any, context: Any) -> Any:
        self._check()
        return self.invite(decode(InvitationTerms, request), request.invited_by)

    def invite(self, terms: InvitationTerms, invited_by: str) -> people_pb2.InvitePersonResponse:
        """Invite a person as the operator does who has this key."""
        self.invited.append((terms, invited_by))
        person = people_pb2.Person(
            person_id=f"per_{len(self.people):016x}",
            name=terms.name,
            mail=terms.mail,
            role=common_pb2.Role.Value(f"ROLE_{terms.role.name}"),
            specialists=terms.specialists,
            state=people_pb2.PERSON_STATE_INVITED,
            create_time=from_datetime(datetime.now(UTC)),
            invitation_expire_time=from_datetime(datetime.now(UTC) + timedelta(days=7)),
            invited_by=invited_by,
        )
        self.people.insert(0, person)
        return people_pb2.InvitePersonResponse(person=person, code=self._code(person))

    def _code(self, person: people_pb2.Person) -> str:
        code = f"tli_{len(self.codes)}_of_{person.person_id}"
        self.codes[digest(code)] = person.person_id
        return code

    def RenewInvitation(self, request: Any, context: Any) -> Any:
        person = self._person(request.person_id)
        self.invited.append((InvitationTerms(person.name, Role.EXPERT), request.invited_by))
        self._forget(request.person_id)
        return people_pb2.RenewInvitationResponse(person=person, code=self._code(person))

    def _forget(self, person_id: str) -> None:
        for known in (self.codes, self.secrets, self.sessions):
            for key in [key for key, holder in known.items() if holder == person_id]:
                del known[key]

    def ListPeople(self, request: Any, context: Any) -> Any:
        self._check()
        return people_pb2.ListPeopleResponse(people=self.people)

    def RemovePerson(self, request: Any, context: Any) -> Any:
        self.people.remove(self._person(request.person_id))
        self.removed.append((request.person_id, request.removed_by))
        self._forget(request.person_id)
        return people_pb2.RemovePersonResponse()

    def AcceptInvitation(self, request: Any, context: Any) -> Any:
        self._check()
        if request.code_sha256 not in self.codes:
            raise NotFound(Reason.UNKNOWN_INVITATION, "The invitation is unknown.")
        person = self._person(self.codes.pop(request.code_sha256))
        person.ClearField("invitation_expire_time")
        person.state = people_pb2.PERSON_STATE_ACTIVE
        secret = f"tlp_of_{person.person_id}"
        self.secrets[digest(secret)] = person.person_id
        return people_pb2.AcceptInvitationResponse(person=person, secret=secret)

    def BeginSession(self, request: Any, context: Any) -> Any:
        self._check()
        if request.HasField("identity"):
            identity = decode(ProviderIdentity, request.identity)
            self.identities.append(identity)
            person = next((item for item in self.people if item.mail and item.mail == identity.verified_mail), None)
            if person is None:
                raise NotFound(Reason.NOT_INVITED, "Nobody with this account is invited.")
            holder = person.person_id
        elif request.key_sha256 in self.registry.visitors:
            holder = request.key_sha256
        elif request.secret_sha256 in self.secrets:
            holder = self.secrets[request.secret_sha256]
        else:
            raise NotFound(Reason.UNKNOWN_CREDENTIAL, "unknown")
        secret = f"session_{len(self.sessions)}_{holder}"
        self.sessions[digest(secret)] = holder
        return people_pb2.BeginSessionResponse(session=self._session(holder), session_secret=secret)

    def GetSession(self, request: Any, context: Any) -> Any:
        self._check()
        return people_pb2.GetSessionResponse(session=self._session(self.sessions.get(request.session_sha256, "")))

    def EndSession(self, request: Any, context: Any) -> Any:
        self._check()
        self.sessions.pop(request.session_sha256, None)
        return people_pb2.EndSessionResponse()

    def _session(self, holder: str) -> people_pb2.Session:
        if holder in self.registry.visitors:
            visitor = self.registry.visitors[holder]
            return encode(people_pb2.Session, visitor, holder_id=visitor.key_id)
        if not holder.startswith("per_"):
            raise NotFound(Reason.UNKNOWN_SESSION, "The session has ended. Sign in again.")
        person = self._person(holder)
        return people_pb2.Session(
            name=person.name, role=person.role, specialists=person.specialists, holder_id=person.person_id
        )

    def _person(self, person_id: str) -> people_pb2.Person:
        self._check()
        for person in self.people:
            if person.person_id == person_id:
                return person
        raise NotFound(Reason.UNKNOWN_PERSON, "This person does not exist.")

    def _check(self) -> None:
        self.registry.check()
