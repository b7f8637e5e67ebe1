"""People and their invitations. Codes and secrets are returned once; only their SHA-256 is stored."""

import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from services.registry.adapters.sql import Begin, Transaction
from services.registry.handlers.keys import MAX_NAME_CHARS
from services.registry.handlers.specialists import lock_specialist, unknown_specialist
from services.registry.people_domain import Person, PersonTerms
from tailor.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, Reason
from tailor.logging import get_logger

log = get_logger(__name__)

CODE_PREFIX = "tli_"
SECRET_PREFIX = "tlp_"  # noqa: S105 - not a secret
PERSON_ID = re.compile(r"per_[0-9a-f]{16}")
SHA256 = re.compile(r"[0-9a-f]{64}")
# ASCII only: two addresses that look alike must not be one after a change to lower case.
MAIL = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,189}")
DEFAULT_DAYS, MAX_DAYS = 7, 30
MAX_SPECIALISTS = 100

MayManage = Callable[[Person], bool]


def check_terms(terms: PersonTerms) -> None:
    """Raises InvalidArgument (INVALID_PERSON) for terms that no person may have."""
    violations = {}
    if not terms.name.strip() or len(terms.name) > MAX_NAME_CHARS or not terms.name.isprintable():
        violations["name"] = f"must have 1 to {MAX_NAME_CHARS} printable characters"
    if terms.mail and not MAIL.fullmatch(terms.mail):
        violations["mail"] = "must be a mail address in ASCII of at most 254 characters"
    if len(terms.specialists) > MAX_SPECIALISTS:
        violations["specialists"] = f"must be at most {MAX_SPECIALISTS}"
    _refuse(violations | _check_days(terms.days))


def _check_days(days: int) -> dict[str, str]:
    return {} if 0 <= days <= MAX_DAYS else {"days": f"must be 1 to {MAX_DAYS}, or 0 for {DEFAULT_DAYS}"}


def _refuse(violations: dict[str, str]) -> None:
    if violations:
        raise InvalidArgument(Reason.INVALID_PERSON, "The invitation is invalid.", field_violations=violations)


def invite_person(
    begin: Begin, terms: PersonTerms, may_use: Callable[[str], bool], invited_by: str
) -> tuple[Person, str]:
    """Invite a person; return them with the code of the invitation, which is empty for a person with a mail address.

    Raises NotFound for a specialist that is unknown or that the inviter may not use, AlreadyExists for the mail address of another person,
    and PermissionDenied for an inviter whose key expires.
    """
    check_terms(terms)
    person = Person(
        person_id=f"per_{secrets.token_hex(8)}",
        name=terms.name.strip(),
        mail=terms.mail.lower(),
        role=terms.role,
        specialists=terms.specialists,
        create_time=datetime.now(UTC),
        invited_by=invited_by,
        invitation_expire_time=_expiry(terms.days),
    )
    code = _code(person)
    with begin() as tx:
        _check_inviter(tx, invited_by)
        for specialist in terms.specialists:
            if not may_use(specialist):
                raise unknown_specialist()
            lock_specialist(tx.specialists, specialist)
        if not tx.people.add(person, invitation_sha256=_sha256(code)):
            raise AlreadyExists(
                Reason.PERSON_EXISTS,
                "A person with this mail address exists. `tailor person list` shows the id; `tailor person renew ID` invites again.",
            )
    log.info("person invited", person_id=person.person_id, role=person.role, invited_by=invited_by)
    return person, code


def _expiry(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days or DEFAULT_DAYS)


def _code(person: Person) -> str:
    """A code for a person who gets a secret. Others sign in by the OpenID provider."""
    return "" if person.mail else CODE_PREFIX + secrets.token_urlsafe(32)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""


def _check_inviter(tx: Transaction, invited_by: str) -> None:
    """Raises PermissionDenied (KEY_IS_LIMITED) for an inviter whose key expires: a person does not, and would outlive it."""
    key = tx.keys.find(key_id=invited_by.rpartition(":")[2])
    if key is not None and key.expire_time is not None:
        raise PermissionDenied(
            Reason.KEY_IS_LIMITED, "A key that expires cannot invite people. Use a key without an expiry."
        )


def renew_invitation(
    begin: Begin, person_id: str, days: int, may_manage: MayManage, invited_by: str
) -> tuple[Person, str]:
    """Invite a person again; ends their sessions and their secret, or the link to their account. Returns as `invite_person`.

    Raises NotFound for a person who is unknown, removed or not the caller's to manage.
    """
    _refuse(_check_days(days))
    with begin() as tx:
        person = _find(tx, person_id, may_manage)
        if person.removed:
            raise unknown_person()
        _check_inviter(tx, invited_by)
        renewed = replace(person, invitation_expire_time=_expiry(days))
        code = _code(renewed)
        expiry = renewed.invitation_expire_time
        tx.people.change(person_id, invitation_sha256=_sha256(code), invitation_expire_time=expiry)
        tx.sessions.delete(holder_id=person_id)
    log.info("person invited again", person_id=person_id, invited_by=invited_by)
    return renewed, code


def find_person(begin: Begin, person_id: str, may_manage: MayManage) -> Person:
    """A person. Raises NotFound for one who is unknown or not the caller's to manage."""
    with begin() as tx:
        return _find(tx, person_id, may_manage)


def _find(tx: Transaction, person_id: str, may_manage: MayManage) -> Person:
    person = tx.people.lock(person_id=person_id) if PERSON_ID.fullmatch(person_id) else None
    if person is None or not may_manage(person):
        raise unknown_person()
    return person


def remove_person(begin: Begin, person_id: str, may_manage: MayManage, removed_by: str) -> Person:
    """Remove a person: end their sessions, and delete their name, mail address and secret. Idempotent.

    Raises NotFound as `find_person`."""
    with begin() as tx:
        person = _find(tx, person_id, may_manage)
        removed = replace(person, name="", mail="", invitation_expire_time=None, removed=True)
        tx.people.change(person_id, name="", mail="", invitation_expire_time=None, removed=True)
        tx.sessions.delete(holder_id=person_id)
    log.info("person removed", person_id=person_id, removed_by=removed_by)
    return removed


def accept_invitation(begin: Begin, code_sha256: str) -> tuple[Person, str]:
    """Exchange the code of an invitation for the person's own secret, once. Raises NotFound for a code that is unknown, used or expired."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    with begin() as tx:
        person = tx.people.lock(invitation_sha256=code_sha256) if SHA256.fullmatch(code_sha256) else None
        if person is None or not person.is_invited(datetime.now(UTC)):
            raise NotFound(
                Reason.UNKNOWN_INVITATION,
                "The invitation is unknown, expired or was used. Ask for another one.",
            )
        tx.people.change(person.person_id, secret_sha256=_sha256(secret), invitation_expire_time=None)
    log.info("invitation accepted", person_id=person.person_id)
    return replace(person, invitation_expire_time=None), secret


def unknown_person() -> NotFound:
    """The same error for a person who does not exist and one whom the caller may not manage."""
    return NotFound(
        Reason.UNKNOWN_PERSON, "This person does not exist. `tailor person list` lists those you can manage."
    )
