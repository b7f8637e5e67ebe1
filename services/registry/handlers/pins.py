"""Entries that stay at the top of a leaderboard."""

import re

from services.registry.adapters.sql import Begin
from services.registry.handlers.specialists import lock_specialist
from tailor.errors import NotFound, Reason

UNTUNED = re.compile(r"base|few_shot|prompt|external:[a-zA-Z0-9_-]{1,63}")


def pin_entry(begin: Begin, specialist: str, entry: str, *, pinned: bool) -> None:
    """Pin an adapter or a model without tuning, or stop. Idempotent. Raises NotFound for an unknown specialist or entry."""
    with begin() as tx:
        lock_specialist(tx.specialists, specialist)
        adapter = tx.facts.find_adapter(entry)
        if not UNTUNED.fullmatch(entry) and (adapter is None or adapter.specialist != specialist):
            raise NotFound(
                Reason.UNKNOWN_ENTRY,
                "The leaderboard has no such entry. `tailor specialist leaderboard NAME` lists its entries.",
            )
        tx.pins.set(specialist, entry, pinned=pinned)
