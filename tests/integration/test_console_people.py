"""People, invitations and sessions: the console's pages and its clients over gRPC, the registry and PostgreSQL."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select, update

from services.console.clients import connect
from services.console.domain import ProviderIdentity, Visitor
from services.console.web.app import create_app
from services.console.web.sessions import COOKIE, SESSION_CACHE_SECONDS, begin_session, sha256
from services.console.web.streams import CHECK_SECONDS
from services.registry.adapters import tables
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Draft, Gate, KeyTerms, PrimaryMetric, Specialist
from services.registry.handlers import keys, specialists
from services.registry.handlers.judgements import identify_expert
from services.registry.handlers.sessions import MAX_SESSIONS
from services.registry.people_rpc import PeopleServicer
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import people_pb2, people_pb2_grpc, registry_pb2_grpc
from tailor.codec import decode, encode
from tailor.errors import NotFound, TailorError
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.values import Labels
from tests.conftest import migrated
from tests.unit.console.world import World as ConsoleWorld
from tests.unit.console.world import csrf, settings, sign_in
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

MAIL = "ada@example.com"
ISSUER = "https://id.example.com"


def anonymize(text: str, labels: Labels) -> str:
    return text


@dataclass(frozen=True)
class Sessions:
    """The registry's sessions and people as the console calls them."""

    people: people_pb2_grpc.PeopleServiceStub

    def begin_with_key(self, secret_sha256: str) -> tuple[Visitor, str]:
        return begin_session(self.people, people_pb2.BeginSessionRequest(key_sha256=secret_sha256))

    def begin_with_secret(self, secret_sha256: str) -> tuple[Visitor, str]:
        return begin_session(self.people, people_pb2.BeginSessionRequest(secret_sha256=secret_sha256))

    def begin_with_identity(self, identity: ProviderIdentity) -> tuple[Visitor, str]:
        account = encode(people_pb2.OpenIdIdentity, identity)
        return begin_session(self.people, people_pb2.BeginSessionRequest(identity=account))

    def get(self, session_sha256: str) -> Visitor:
        session = self.people.GetSession(people_pb2.GetSessionRequest(session_sha256=session_sha256)).session
        return decode(Visitor, session, key_id=session.holder_id)

    def end(self, session_sha256: str) -> None:
        self.people.EndSession(people_pb2.EndSessionRequest(session_sha256=session_sha256))

    def accept_invitation(self, code_sha256: str) -> people_pb2.AcceptInvitationResponse:
        return self.people.AcceptInvitation(people_pb2.AcceptInvitationRequest(code_sha256=code_sha256))

    def renew(self, person_id: str, invited_by: str) -> people_pb2.RenewInvitationResponse:
        request = people_pb2.RenewInvitationRequest(person_id=person_id, invited_by=invited_by)
        return self.people.RenewInvitation(request)

    def remove(self, person_id: str, removed_by: str) -> None:
        self.people.RemovePerson(people_pb2.RemovePersonRequest(person_id=person_id, removed_by=removed_by))


class World:
    """A registry with the specialists `memos` and `reports`, each with a draft."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.begin = transactions(engine, self.outbox)
        for name in ("memos", "reports"):
            self._specialist(name)
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        (folder / "trust.json").write_text(json.dumps({"console": public}))
        self._console = Identity("console", key)
        queries = Queries(engine)
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                    RegistryServicer(self.begin, queries, anonymize, (), check_pipeline=lambda *_: None),
                ),
                (people_pb2_grpc.add_PeopleServiceServicer_to_server, PeopleServicer(self.begin, queries)),
            ],
            authenticator=Authenticator("registry", Trust.load(folder / "trust.json"), key_verifier(self.begin)),
        )
        self.server.start()
        self._channel = open_channel(f"127.0.0.1:{self.server.port}", lambda: self._console.token("registry"))
        self.services = connect(ConsoleWorld().channels | {"registry": self._channel})
        self.sessions = Sessions(self.services.people)

    def _specialist(self, name: str) -> None:
        gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
        specialists.create_specialist(self.begin, Specialist(name, "tiny", "lora", gate=gate, keep_drafts=True))
        for draft in ("a", "b"):
            message = drafts_pb2.DraftCreated(
                draft_id=f"drf_{name}_{draft}", specialist=name, prompt_digest="p", answer_digest=draft
            )
            with self.begin() as tx:
                tx.facts.save_draft(decode(Draft, message), message.SerializeToString())

    def key(self, role: str, *specialist_names: str, **terms: Any) -> str:
        """The secret of a new key."""
        key_terms = KeyTerms("test", f"ROLE_{role}", specialist_names, **terms)
        return keys.create_key(self.begin, key_terms, lambda _: True, "")[1]

    def people(self, secret: str = "") -> people_pb2_grpc.PeopleServiceStub:
        """The service, called with a key, or by the console."""
        channel = open_channel(f"127.0.0.1:{self.server.port}", lambda: secret) if secret else self._channel
        return people_pb2_grpc.PeopleServiceStub(channel)

    def invite(self, secret: str = "", role: str = "EXPERT", **fields: Any) -> people_pb2.InvitePersonResponse:
        number = common_pb2.Role.Value(f"ROLE_{role}")
        terms: dict[str, Any] = {"name": "Ada Example", "role": number} | fields
        request = people_pb2.InvitePersonRequest(**terms)
        with wire_errors("registry"):
            return self.people(secret).InvitePerson(request, timeout=60)

    def join(self, **fields: Any) -> tuple[str, str]:
        """A person who accepted an invitation: id and secret."""
        answer = self.invite(**fields)
        return answer.person.person_id, self.sessions.accept_invitation(sha256(answer.code)).secret

    def browser(self) -> TestClient:
        """A browser at a console that has just started."""
        return TestClient(create_app(settings(), self.services), follow_redirects=False, raise_server_exceptions=False)

    def set(self, table: Any, **values: Any) -> None:
        """Change every row of a table."""
        with self.engine.begin() as connection:
            connection.execute(update(table).values(**values))

    def dump(self, table: Any) -> str:
        """Every row of a table as text."""
        with self.engine.connect() as connection:
            return "\n".join(map(str, connection.execute(select(table))))


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        yield world
        world.server.stop(0)


def reason(call: Callable[[], Any]) -> str:
    """The reason with which a call fails; empty if it succeeds."""
    try:
        with wire_errors("registry"):
            call()
    except TailorError as error:
        return error.reason
    return ""


def test_a_person_is_invited_signs_in_judges_and_keeps_the_session_over_a_restart(world: World) -> None:
    invited = world.invite(world.key("OPERATOR"), specialists=["memos"], days=3)
    hours = (invited.person.invitation_expire_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds() / 3600
    assert 71 < hours <= 72 and invited.person.state == people_pb2.PERSON_STATE_INVITED
    browser = world.browser()
    answer = browser.post("/invitation", data={"code": invited.code, "csrf": csrf(browser, "/invitation")})
    found = re.search(r"tlp_[\w-]{43}", answer.text)
    assert answer.status_code == 200 and found
    sign_in(browser, found.group())
    ranking = {"ranking": ["drf_memos_a", "drf_memos_b"], "outcome": "ranked"}
    assert browser.post("/api/judgements", json=ranking).status_code in {200, 201}
    foreign = ranking | {"ranking": ["drf_reports_a", "drf_reports_b"]}
    assert browser.post("/api/judgements", json=foreign).status_code == 404
    world.outbox.relay()
    published = [event.value for event in world.producer.events("judgement.recorded.v1")]
    judged = [drafts_pb2.JudgementRecorded.FromString(value) for value in published if value]
    assert [item.expert_id for item in judged] == [identify_expert(invited.person.person_id)]
    assert "Ada" not in str(judged)
    replica = world.browser()
    replica.cookies.set(COOKIE, browser.cookies[COOKIE])
    assert "Ada Example" in replica.get("/ask").text
    browser.post("/logout")
    wait_until(lambda: replica.get("/ask").headers.get("location", "").startswith("/login"), 5)


def test_a_removed_person_is_signed_out_within_three_seconds_and_forgotten(world: World) -> None:
    operator = world.key("OPERATOR")
    person_id, secret = world.join(mail="")
    browser = world.browser()
    sign_in(browser, secret)
    assert "Ada Example" in browser.get("/ask").text
    removed = world.people(operator).RemovePerson(people_pb2.RemovePersonRequest(person_id=person_id), timeout=60)
    # A page may use its cached session, then a stream runs until its next check. A clock would measure the machine.
    assert SESSION_CACHE_SECONDS + CHECK_SECONDS <= 3
    wait_until(lambda: browser.get("/ask").status_code != 200, 5)
    assert (removed.person.name, removed.person.state) == ("", people_pb2.PERSON_STATE_REMOVED)
    assert "Ada" not in world.dump(tables.people) and sha256(secret) not in world.dump(tables.people)
    assert reason(lambda: world.sessions.begin_with_secret(sha256(secret))) == "UNKNOWN_CREDENTIAL"
    request = people_pb2.RenewInvitationRequest(person_id=person_id)
    assert reason(lambda: world.people(operator).RenewInvitation(request)) == "UNKNOWN_PERSON"
    assert reason(lambda: world.sessions.remove(person_id, "")) == ""


def test_an_invitation_works_once_even_if_used_at_the_same_time_and_not_after_its_expiry(world: World) -> None:
    code = sha256(world.invite().code)
    together = threading.Barrier(8)
    accepted: list[str] = []

    def accept() -> None:
        together.wait()
        with suppress(NotFound):
            accepted.append(world.sessions.accept_invitation(code).secret)

    threads = [threading.Thread(target=accept) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 1
    late = world.invite()
    world.set(tables.people, invitation_expire_time=datetime.now(UTC) - timedelta(seconds=1))
    for digest in (code, sha256(late.code), sha256("tli_guess"), "", "' OR 1=1", "\x00"):
        assert reason(partial(world.sessions.accept_invitation, digest)) == "UNKNOWN_INVITATION"


def test_a_new_invitation_replaces_secret_and_sessions_of_the_same_person(world: World) -> None:
    person_id, secret = world.join()
    _, session = world.sessions.begin_with_secret(sha256(secret))
    renewed = world.sessions.renew(person_id, "")
    assert renewed.person.person_id == person_id
    assert reason(lambda: world.sessions.get(sha256(session))) == "UNKNOWN_SESSION"
    assert reason(lambda: world.sessions.begin_with_secret(sha256(secret))) == "UNKNOWN_CREDENTIAL"
    again = world.sessions.accept_invitation(sha256(renewed.code)).secret
    assert world.sessions.begin_with_secret(sha256(again))[0].key_id == person_id


@pytest.mark.parametrize("malformed", ["", "x", "\x00", "' OR 1=1", "A" * 64])
def test_what_is_not_a_hash_is_answered_like_an_unknown_one(world: World, malformed: str) -> None:
    for begin in (world.sessions.begin_with_key, world.sessions.begin_with_secret):
        assert reason(partial(begin, malformed)) == "UNKNOWN_CREDENTIAL"
    assert reason(partial(world.sessions.get, malformed)) == "UNKNOWN_SESSION"
    assert reason(partial(world.sessions.end, malformed)) == ""
    for person_id in (malformed, f"per_{malformed}"):
        assert reason(partial(world.sessions.remove, person_id, "")) == "UNKNOWN_PERSON"


def test_secrets_are_stored_as_hashes(world: World) -> None:
    invited = world.invite()
    _, secret = world.join()
    _, session = world.sessions.begin_with_secret(sha256(secret))
    stored = world.dump(tables.people) + world.dump(tables.sessions)
    for text in (invited.code, secret, session):
        assert text not in stored and sha256(text) in stored


def test_sessions_expire_are_limited_per_holder_and_end_with_their_key(world: World) -> None:
    key = world.key("ENGINEER", "memos")
    visitor, first = world.sessions.begin_with_key(sha256(key))
    assert (visitor.role, visitor.specialists) == ("engineer", frozenset({"memos"}))
    _, secret = world.join()
    _, other = world.sessions.begin_with_secret(sha256(secret))
    opened = [world.sessions.begin_with_key(sha256(key))[1] for _ in range(MAX_SESSIONS)]
    assert reason(lambda: world.sessions.get(sha256(first))) == "UNKNOWN_SESSION"
    assert world.sessions.get(sha256(opened[0])) == visitor
    with world.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.sessions)) == MAX_SESSIONS + 1
    keys.revoke_key(world.begin, visitor.key_id, lambda _: True, "")
    assert reason(lambda: world.sessions.get(sha256(opened[-1]))) == "UNKNOWN_SESSION"
    assert world.sessions.get(sha256(other)).name == "Ada Example"
    world.set(tables.sessions, expire_time=datetime.now(UTC))
    assert reason(lambda: world.sessions.get(sha256(other))) == "UNKNOWN_SESSION"
    world.sessions.begin_with_secret(sha256(secret))
    with world.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.sessions)) == 1


@pytest.mark.parametrize("terms", [{"methods": ("a.B/C",)}, {"calls_per_minute": 60}])
def test_a_limited_key_neither_signs_in_nor_invites(world: World, terms: dict[str, Any]) -> None:
    methods = ("tailor.api.registry.v1.PeopleService/InvitePerson",) if "methods" in terms else ()
    secret = world.key("OPERATOR", **terms | {"methods": methods})
    assert reason(lambda: world.sessions.begin_with_key(sha256(secret))) == "KEY_IS_LIMITED"
    assert reason(lambda: world.invite(secret)) == "KEY_IS_LIMITED"


def test_a_key_that_expires_invites_nobody(world: World) -> None:
    secret = world.key("OPERATOR", expire_time=datetime.now(UTC) + timedelta(days=1))
    assert reason(lambda: world.invite(secret)) == "KEY_IS_LIMITED"
    visitor, _ = world.sessions.begin_with_key(sha256(secret))
    assert reason(lambda: world.invite(invited_by=visitor.key_id)) == "KEY_IS_LIMITED"


GIVES = {"OPERATOR": {"CALLER", "EXPERT", "ENGINEER", "OPERATOR"}, "DATA_PROTECTION": {"DATA_PROTECTION"}}
ROLES = ("CALLER", "EXPERT", "ENGINEER", "OPERATOR", "DATA_PROTECTION")


@pytest.mark.parametrize("giver", ["OPERATOR", "DATA_PROTECTION", "console"])
def test_nobody_gives_a_role_above_their_own(world: World, giver: str) -> None:
    secret = "" if giver == "console" else world.key(giver)
    given = {role for role in ROLES if not reason(partial(world.invite, secret, role))}
    assert given == GIVES.get(giver, {"CALLER", "EXPERT", "ENGINEER"})


def test_operators_of_some_specialists_and_data_protection_manage_their_own_people(world: World) -> None:
    operator, narrow, protection = world.key("OPERATOR"), world.key("OPERATOR", "memos"), world.key("DATA_PROTECTION")
    ids = {
        "all": world.invite(operator).person.person_id,
        "memos": world.invite(operator, specialists=["memos"]).person.person_id,
        "protection": world.invite(protection, "DATA_PROTECTION").person.person_id,
    }
    seen = {"all": (operator,), "memos": (operator, narrow), "protection": (operator, protection)}
    for secret in (operator, narrow, protection):
        stub = world.people(secret)
        listed = {person.person_id for person in stub.ListPeople(people_pb2.ListPeopleRequest(), timeout=60).people}
        assert listed == {ids[name] for name in ids if secret in seen[name]}
    for name in ("all", "protection"):
        request = people_pb2.RemovePersonRequest(person_id=ids[name])
        assert reason(partial(world.people(narrow).RemovePerson, request)) == "UNKNOWN_PERSON"
    # Who invites somebody again holds the code, so the rules are those of inviting.
    renewal = people_pb2.RenewInvitationRequest(person_id=ids["protection"])
    assert reason(lambda: world.people(operator).RenewInvitation(renewal)) == "ROLE_NOT_YOURS_TO_GIVE"
    assert reason(lambda: world.invite(narrow)) == "INVALID_PERSON"
    assert reason(lambda: world.invite(narrow, specialists=["reports"])) == "UNKNOWN_SPECIALIST"
    assert reason(lambda: world.invite(operator, specialists=["nobody"])) == "UNKNOWN_SPECIALIST"


def test_people_are_listed_in_pages(world: World) -> None:
    ids = [world.invite().person.person_id for _ in range(5)]
    stub, token, listed = world.people(), "", []
    while True:
        page = stub.ListPeople(people_pb2.ListPeopleRequest(page_size=2, page_token=token), timeout=60)
        listed += [person.person_id for person in page.people]
        if not (token := page.next_page_token):
            break
    assert listed == ids[::-1]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": " "},
        {"name": "x" * 65},
        {"name": "Ada\x00"},
        {"mail": "ada"},
        {"mail": "ada@example.com\n"},
        {"mail": "\u212aarl@example.com"},
        {"mail": "x" * 65 + "@example.com"},
        {"days": 31},
        {"days": -1},
        {"specialists": ["memos"] * 101},
    ],
)
def test_invalid_terms_are_refused(world: World, fields: dict[str, Any]) -> None:
    assert reason(lambda: world.invite(**fields)) == "INVALID_PERSON"


def test_an_account_is_linked_once_by_its_verified_mail_address(world: World) -> None:
    invited = world.invite(mail="Ada@Example.com")
    assert (invited.code, invited.person.mail) == ("", MAIL)
    ada = ProviderIdentity(ISSUER, "sub-1", MAIL)
    for stranger in (ProviderIdentity(ISSUER, "sub-1"), ProviderIdentity(ISSUER, "sub-1", "eve@example.com")):
        assert reason(partial(world.sessions.begin_with_identity, stranger)) == "NOT_INVITED"
    visitor, _ = world.sessions.begin_with_identity(replace(ada, verified_mail="ADA@example.com"))
    assert visitor.key_id == invited.person.person_id
    # From then on, the account counts and not the mail address, which can change or be given to somebody else.
    assert world.sessions.begin_with_identity(replace(ada, verified_mail=""))[0] == visitor
    for other in (replace(ada, subject="sub-2"), replace(ada, issuer="https://other.example.com")):
        assert reason(partial(world.sessions.begin_with_identity, other)) == "NOT_INVITED"
    world.sessions.renew(visitor.key_id, "")
    assert world.sessions.begin_with_identity(replace(ada, subject="sub-2"))[0] == visitor
    assert reason(lambda: world.sessions.begin_with_identity(replace(ada, verified_mail=""))) == "NOT_INVITED"


def test_an_expired_invitation_links_no_account_and_a_mail_address_belongs_to_one_person(world: World) -> None:
    world.invite(mail=MAIL)
    assert reason(lambda: world.invite(mail=MAIL.upper())) == "PERSON_EXISTS"
    world.set(tables.people, invitation_expire_time=datetime.now(UTC))
    assert reason(lambda: world.sessions.begin_with_identity(ProviderIdentity(ISSUER, "sub-1", MAIL))) == "NOT_INVITED"


@pytest.mark.parametrize("role", [0, 99])
def test_a_person_has_one_of_the_five_roles(world: World, role: Any) -> None:
    request = people_pb2.InvitePersonRequest(name="Ada", role=role)
    assert reason(lambda: world.people().InvitePerson(request)) == "INVALID_PERSON"


@pytest.mark.parametrize("identity", [("", "s"), (ISSUER, ""), (ISSUER, "x" * 256), ("x" * 513, "s"), (ISSUER, "\x00")])
def test_identities_have_limits(world: World, identity: tuple[str, str]) -> None:
    assert reason(lambda: world.sessions.begin_with_identity(ProviderIdentity(*identity))) == "INVALID_REQUEST"
