"""People who may sign in to the console, and their sessions. Standard library only."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class PersonTerms:
    """Who is invited, and as what. `mail` is empty for a person who signs in with a secret of their own."""

    name: str
    role: str
    mail: str = ""
    specialists: tuple[str, ...] = ()
    days: int = 0


@dataclass(frozen=True)
class Person:
    """A person without their secret. `invited_by` is as `created_by` of an `ApiKey`. A removed person has neither name nor mail address."""

    person_id: str
    name: str
    mail: str
    role: str
    specialists: tuple[str, ...]
    create_time: datetime
    invited_by: str
    # None once the person has signed in.
    invitation_expire_time: datetime | None = None
    removed: bool = False

    @property
    def is_active(self) -> bool:
        """True if the person has signed in since they were last invited, and is not removed."""
        return not self.removed and self.invitation_expire_time is None

    def is_invited(self, now: datetime) -> bool:
        """True while an invitation can be accepted."""
        return not self.removed and self.invitation_expire_time is not None and now < self.invitation_expire_time


@dataclass(frozen=True)
class OpenIdAccount:
    """An account at the OpenID provider. `verified_mail` is empty if the provider has not verified the address."""

    issuer: str
    subject: str
    verified_mail: str = ""


@dataclass(frozen=True)
class Holder:
    """Who a session belongs to: an API key or a person, and their rights."""

    holder_id: str
    name: str
    role: str
    specialists: tuple[str, ...] = ()


@dataclass(frozen=True)
class Session:
    """An open session on the console."""

    holder: Holder
    expire_time: datetime
