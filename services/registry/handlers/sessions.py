"""Sessions on the console. Only the SHA-256 of a session's secret is stored."""

import hashlib
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.registry.adapters.sql import Begin, Transaction
from services.registry.domain import ApiKey
from services.registry.handlers.keys import verify_key
from services.registry.handlers.people import SHA256
from services.registry.people_domain import Holder, OpenIdAccount, Person, Session
from tailor.errors import InvalidArgument, NotFound, PermissionDenied, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

LIFETIME = timedelta(hours=8)
# Of one holder; the oldest session ends.
MAX_SESSIONS = 20
MAX_ISSUER_CHARS, MAX_SUBJECT_CHARS = 512, 255


def begin_with_key(begin: Begin, secret_sha256: str) -> tuple[Session, str]:
    """A session of a key's holder, and its secret. Raises NotFound for an invalid key, PermissionDenied for one with limits."""
    if not SHA256.fullmatch(secret_sha256):
        raise _unknown_credential()
    try:
        key = verify_key(begin, secret_sha256)
    except NotFound:
        raise _unknown_credential() from None
    if key.methods or key.calls_per_minute:
        raise PermissionDenied(
            Reason.KEY_IS_LIMITED, "A key limited to methods or to a rate is for systems. Sign in with another key."
        )
    with begin() as tx:
        return _open(tx, _from_key(key))


def begin_with_secret(begin: Begin, secret_sha256: str) -> tuple[Session, str]:
    """A session of the person with this secret, and its secret. Raises NotFound."""
    with begin() as tx:
        person = tx.people.lock(secret_sha256=secret_sha256) if SHA256.fullmatch(secret_sha256) else None
        if person is None or not person.is_active:
            raise _unknown_credential()
        return _open(tx, _from_person(person))


def begin_with_identity(begin: Begin, identity: OpenIdAccount) -> tuple[Session, str]:
    """A session of the person with this account at the OpenID provider, and its secret.

    The first sign-in of an invited person links their account to them; from then on, their mail address is not looked at. Raises NotFound
    (NOT_INVITED) for an account of nobody.
    """
    _check_identity(identity)
    with begin() as tx:
        person = tx.people.lock(issuer=identity.issuer, subject=identity.subject) or _link(tx, identity)
        if person is None or not person.is_active:
            raise NotFound(
                Reason.NOT_INVITED,
                "Nobody with this account is invited, or the invitation has expired. Ask an operator to invite you.",
            )
        return _open(tx, _from_person(person))


def _check_identity(identity: OpenIdAccount) -> None:
    values = (identity.issuer, MAX_ISSUER_CHARS), (identity.subject, MAX_SUBJECT_CHARS)
    if not all(value.isprintable() and 0 < len(value) <= limit for value, limit in values):
        raise InvalidArgument(Reason.INVALID_REQUEST, "The identity needs an issuer and a subject.")


def _link(tx: Transaction, identity: OpenIdAccount) -> Person | None:
    """The invited person with this mail address, with the account linked. None if nobody with it waits to sign in."""
    mail = identity.verified_mail
    person = tx.people.lock(mail=mail.lower()) if mail.isascii() and mail.isprintable() and mail else None
    if person is None or not person.is_invited(datetime.now(UTC)):
        return None
    account = {"issuer": identity.issuer, "subject": identity.subject}
    tx.people.change(person.person_id, invitation_expire_time=None, **account)
    log.info("account linked", person_id=person.person_id)
    return replace(person, invitation_expire_time=None)


def _open(tx: Transaction, holder: Holder) -> tuple[Session, str]:
    secret = secrets.token_urlsafe(32)
    session = Session(holder, datetime.now(UTC) + LIFETIME)
    tx.sessions.begin(hashlib.sha256(secret.encode()).hexdigest(), session, MAX_SESSIONS)
    log.info("session begun", holder_id=holder.holder_id, role=holder.role)
    return session, secret


def get_session(begin: Begin, session_sha256: str) -> Session:
    """An open session, with its holder's rights as they are now. Raises NotFound once it or its holder's access has ended."""
    now = datetime.now(UTC)
    with begin() as tx:
        stored = tx.sessions.find(session_sha256=session_sha256) if SHA256.fullmatch(session_sha256) else None
        holder = None
        if stored is not None and now < stored.expire_time:
            key, person = tx.keys.find(key_id=stored.holder_id), tx.people.find(person_id=stored.holder_id)
            if key is not None and key.is_valid(now):
                holder = _from_key(key)
            elif person is not None and person.is_active:
                holder = _from_person(person)
    if stored is None or holder is None:
        raise NotFound(Reason.UNKNOWN_SESSION, "The session has ended. Sign in again.")
    return Session(holder, stored.expire_time)


def end_session(begin: Begin, session_sha256: str) -> None:
    """End a session. Idempotent."""
    if not SHA256.fullmatch(session_sha256):
        return
    with begin() as tx:
        tx.sessions.delete(session_sha256=session_sha256)


def _from_key(key: ApiKey) -> Holder:
    return Holder(key.key_id, key.name, key.role, key.specialists)


def _from_person(person: Person) -> Holder:
    return Holder(person.person_id, person.name, person.role, person.specialists)


def _unknown_credential() -> NotFound:
    return NotFound(Reason.UNKNOWN_CREDENTIAL, "The key or the secret is unknown, expired or revoked.")
