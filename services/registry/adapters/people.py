"""People and sessions in PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from services.registry.adapters import tables
from services.registry.people_domain import Person, Session
from tailor.rows import Rows

# Nothing by which somebody could sign in.
NO_CREDENTIALS = {"secret_sha256": "", "issuer": "", "subject": "", "invitation_sha256": ""}


class SqlPeople(Rows[Person]):
    """People who may sign in to the console; of codes and secrets, only the SHA-256."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.people, Person)

    def change(self, person_id: str, **changed: Any) -> None:
        """Change a person. The credentials that are not named end."""
        self.update(NO_CREDENTIALS | changed, person_id=person_id)


class SqlSessions(Rows[Row[Any]]):
    """Sessions on the console, by the SHA-256 of their secret."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, tables.sessions, Row)

    def begin(self, session_sha256: str, session: Session, limit: int) -> None:
        """Store a session. Deletes expired ones, and the oldest ones of its holder beyond the limit."""
        holder_id, key, expire_time = session.holder.holder_id, self.c.session_sha256, self.c.expire_time
        self.delete(expire_time <= datetime.now(UTC))
        newest = select(key).where(self.c.holder_id == holder_id).order_by(expire_time.desc()).limit(limit - 1)
        self.delete(key.not_in(newest), holder_id=holder_id)
        self.insert(session_sha256=session_sha256, holder_id=holder_id, expire_time=session.expire_time)
