"""The registry's people and sessions in memory."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.console.domain import InvitationTerms, Page, ProviderIdentity, Role, Visitor
from services.console.ports import Invitation, PeopleDirectory, SessionRegistry
from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import people_pb2
from tailor.errors import NotFound, Reason
from tailor.wire import from_datetime
from tests.unit.console.fake_registry import FakeRegistry


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass
class FakePeople(PeopleDirectory, SessionRegistry):
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

    def invite(self, terms: InvitationTerms, invited_by: str) -> Invitation:
        self._check()
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
        return self._code(person)

    def _code(self, person: people_pb2.Person) -> Invitation:
        code = f"tli_{len(self.codes)}_of_{person.person_id}"
        self.codes[digest(code)] = person.person_id
        return Invitation(person, code)

    def renew(self, person_id: str, invited_by: str) -> Invitation:
        person = self._person(person_id)
        self.invited.append((InvitationTerms(person.name, Role.EXPERT), invited_by))
        self._forget(person_id)
        return self._code(person)

    def _forget(self, person_id: str) -> None:
        for known in (self.codes, self.secrets, self.sessions):
            for key in [key for key, holder in known.items() if holder == person_id]:
                del known[key]

    def list_people(self, token: str) -> Page[people_pb2.Person]:
        self._check()
        return Page(tuple(self.people))

    def remove(self, person_id: str, removed_by: str) -> None:
        self.people.remove(self._person(person_id))
        self.removed.append((person_id, removed_by))
        self._forget(person_id)

    def accept_invitation(self, code_sha256: str) -> people_pb2.AcceptInvitationResponse:
        self._check()
        if code_sha256 not in self.codes:
            raise NotFound(Reason.UNKNOWN_INVITATION, "The invitation is unknown.")
        person = self._person(self.codes.pop(code_sha256))
        person.ClearField("invitation_expire_time")
        person.state = people_pb2.PERSON_STATE_ACTIVE
        secret = f"tlp_of_{person.person_id}"
        self.secrets[digest(secret)] = person.person_id
        return people_pb2.AcceptInvitationResponse(person=person, secret=secret)

    def begin_with_key(self, secret_sha256: str) -> tuple[Visitor, str]:
        self._check()
        if secret_sha256 not in self.registry.visitors:
            raise NotFound(Reason.UNKNOWN_CREDENTIAL, "unknown")
        return self.registry.visitors[secret_sha256], self._begin(secret_sha256)

    def begin_with_secret(self, secret_sha256: str) -> tuple[Visitor, str]:
        self._check()
        if secret_sha256 not in self.secrets:
            raise NotFound(Reason.UNKNOWN_CREDENTIAL, "unknown")
        person_id = self.secrets[secret_sha256]
        return self._visitor(person_id), self._begin(person_id)

    def begin_with_identity(self, identity: ProviderIdentity) -> tuple[Visitor, str]:
        self._check()
        self.identities.append(identity)
        person = next((item for item in self.people if item.mail and item.mail == identity.verified_mail), None)
        if person is None:
            raise NotFound(Reason.NOT_INVITED, "Nobody with this account is invited.")
        return self._visitor(person.person_id), self._begin(person.person_id)

    def _begin(self, holder: str) -> str:
        secret = f"session_{len(self.sessions)}_{holder}"
        self.sessions[digest(secret)] = holder
        return secret

    def get(self, session_sha256: str) -> Visitor:
        self._check()
        holder = self.sessions.get(session_sha256, "")
        if holder in self.registry.visitors:
            return self.registry.visitors[holder]
        if not holder.startswith("per_"):
            raise NotFound(Reason.UNKNOWN_SESSION, "The session has ended. Sign in again.")
        return self._visitor(holder)

    def end(self, session_sha256: str) -> None:
        self._check()
        self.sessions.pop(session_sha256, None)

    def _visitor(self, person_id: str) -> Visitor:
        person = self._person(person_id)
        role = common_pb2.Role.Name(person.role).removeprefix("ROLE_").lower().replace("_", " ")
        return Visitor(person.name, Role(role), frozenset(person.specialists), person_id)

    def _person(self, person_id: str) -> people_pb2.Person:
        self._check()
        for person in self.people:
            if person.person_id == person_id:
                return person
        raise NotFound(Reason.UNKNOWN_PERSON, "This person does not exist.")

    def _check(self) -> None:
        self.registry.check()
