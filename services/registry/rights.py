"""What the caller of a method may manage, and in whose name."""

import re
from collections.abc import Collection

from services.registry.handlers.keys import DATA_PROTECTION
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.auth import current_caller

# Of a key or a person.
VISITOR_ID = re.compile(r"(key|per)_\w{1,32}")


def visitor_or_caller(visitor: str) -> str:
    """Who asks: a key, or a service, with the key or person that is its visitor if it names one.

    Raises InvalidArgument for a malformed id."""
    caller = current_caller()
    if caller.kind == "key" or not visitor:
        return caller.key_id or caller.name
    if not VISITOR_ID.fullmatch(visitor):
        raise InvalidArgument(Reason.INVALID_REQUEST, "Name the visitor by the id of a key or of a person.")
    return f"{caller.name}:{visitor}"


def may_manage(role: str, specialists: Collection[str]) -> bool:
    """True for a key or a person with no more specialists than the caller's own; data protection manages its own role only."""
    caller = current_caller()
    if caller.role == DATA_PROTECTION and role != DATA_PROTECTION:
        return False
    return not caller.specialists or (bool(specialists) and all(map(caller.may_use, specialists)))
