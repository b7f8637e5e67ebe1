"""People and sessions in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.people_domain import OpenIdAccount, Person, Session

# Nothing by which somebody could sign in.
NO_CREDENTIALS: dict[str, Any] = {"secret_sha256": "", "issuer": "", "subject": "", "invitation_sha256": ""}


class SqlPeople:
    """People who may sign in to the console; of codes and secrets, only the SHA-256. A locked person stays as they are until the
    transaction ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, person: Person, invitation_sha256: str) -> bool:
        """Store a person with the hash of an invitation's code, which may be empty; False if another has their mail address."""
        row = NO_CREDENTIALS | asdict(person) | {"invitation_sha256": invitation_sha256}
        statement = insert(tables.people).values(row).on_conflict_do_nothing().returning(tables.people.c.person_id)
        return self._connection.scalar(statement) is not None

    def find(self, person_id: str) -> Person | None:
        return self._find(tables.people.c.person_id == person_id)

    def lock(self, person_id: str) -> Person | None:
        return self._find(tables.people.c.person_id == person_id, lock=True)

    def lock_invited(self, invitation_sha256: str) -> Person | None:
        return self._find(tables.people.c.invitation_sha256 == invitation_sha256, lock=True)

    def lock_by_mail(self, mail: str) -> Person | None:
        return self._find(tables.people.c.mail == mail, lock=True)

    def lock_by_secret(self, secret_sha256: str) -> Person | None:
        return self._find(tables.people.c.secret_sha256 == secret_sha256, lock=True)

    def lock_by_identity(self, identity: OpenIdAccount) -> Person | None:
        table = tables.people
        condition = (table.c.issuer == identity.issuer) & (table.c.subject == identity.subject)
        return self._find(condition, lock=True)

    def _find(self, condition: ColumnElement[bool], *, lock: bool = False) -> Person | None:
        query = select(tables.people).where(condition)
        row = self._connection.execute(query.with_for_update() if lock else query).first()
        return None if row is None else to_person(row)

    def invite(self, person: Person, invitation_sha256: str) -> None:
        """Store a new invitation and its expiry. It replaces an earlier one, the secret and the linked account."""
        changed = NO_CREDENTIALS | {"invitation_sha256": invitation_sha256}
        self._update(person.person_id, changed | {"invitation_expire_time": person.invitation_expire_time})

    def accept(self, person_id: str, secret_sha256: str) -> None:
        """Replace a person's invitation by a secret."""
        self._update(person_id, NO_CREDENTIALS | {"secret_sha256": secret_sha256, "invitation_expire_time": None})

    def link(self, person_id: str, identity: OpenIdAccount) -> None:
        """Replace a person's invitation by an account at the OpenID provider."""
        changed = NO_CREDENTIALS | {"issuer": identity.issuer, "subject": identity.subject}
        self._update(person_id, changed | {"invitation_expire_time": None})

    def remove(self, person_id: str) -> None:
        """Mark a person as removed; deletes what names them and what they sign in with."""
        gone = {"name": "", "mail": "", "invitation_expire_time": None, "removed": True}
        self._update(person_id, NO_CREDENTIALS | gone)

    def _update(self, person_id: str, changed: dict[str, Any]) -> None:
        table = tables.people
        self._connection.execute(update(table).where(table.c.person_id == person_id).values(changed))


class SqlSessions:
    """Sessions on the console, by the SHA-256 of their secret."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, session_sha256: str, session: Session, limit: int) -> None:
        """Store a session. Deletes expired ones, and the oldest ones of its holder beyond the limit."""
        table, now = tables.sessions, datetime.now(UTC)
        is_holders = table.c.holder_id == session.holder.holder_id
        newest = select(table.c.session_sha256).where(is_holders).order_by(table.c.expire_time.desc()).limit(limit - 1)
        self._connection.execute(delete(table).where(table.c.expire_time <= now))
        self._connection.execute(delete(table).where(is_holders, table.c.session_sha256.not_in(newest)))
        row = {"session_sha256": session_sha256, "holder_id": session.holder.holder_id}
        self._connection.execute(insert(table).values(row | {"expire_time": session.expire_time}))

    def find(self, session_sha256: str) -> tuple[str, datetime] | None:
        """The id of the holder and the time of expiry, which may have passed."""
        table = tables.sessions
        row = self._connection.execute(select(table).where(table.c.session_sha256 == session_sha256)).first()
        return None if row is None else (row.holder_id, row.expire_time)

    def end(self, session_sha256: str) -> None:
        table = tables.sessions
        self._connection.execute(delete(table).where(table.c.session_sha256 == session_sha256))

    def end_all(self, holder_id: str) -> None:
        table = tables.sessions
        self._connection.execute(delete(table).where(table.c.holder_id == holder_id))


def list_people(connection: Connection, before: int | None, limit: int) -> Sequence[tuple[int, Person]]:
    """Positions and people, newest first."""
    table = tables.people
    query = select(table) if before is None else select(table).where(table.c.position < before)
    rows = connection.execute(query.order_by(table.c.position.desc()).limit(limit))
    return [(row.position, to_person(row)) for row in rows]


def to_person(row: Row[Any]) -> Person:
    """A person from their row."""
    return Person(
        person_id=row.person_id,
        name=row.name,
        mail=row.mail,
        role=row.role,
        specialists=tuple(row.specialists),
        create_time=row.create_time,
        invited_by=row.invited_by,
        invitation_expire_time=row.invitation_expire_time,
        removed=row.removed,
    )
