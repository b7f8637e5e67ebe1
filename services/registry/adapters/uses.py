"""What serving, storage and experts' time used, in PostgreSQL."""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, update
from sqlalchemy.dialects.postgresql import insert

from services.registry.adapters import tables
from services.registry.domain import Draft

MAX_DEVICE_CHARS = 128


class SqlUses:
    """What the ledger adds up. Saving something again has no effect."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def save_serving(self, draft: Draft, now: datetime) -> None:
        """Store the device time of a draft, if it has any. `now` counts for a draft without a time."""
        if not draft.specialist or draft.compute_seconds <= 0:
            return
        row = {
            "draft_id": draft.draft_id,
            "specialist": draft.specialist,
            "device": draft.compute_device[:MAX_DEVICE_CHARS],
            "seconds": draft.compute_seconds,
            "create_time": draft.create_time or now,
        }
        self._connection.execute(insert(tables.serving_uses).values(row).on_conflict_do_nothing())

    def save_files(self, owner: str, specialist: str, files: Mapping[str, int], create_time: datetime) -> None:
        """Store the bytes, by SHA-256, of the files of a dataset or adapter."""
        rows = [
            {
                "owner": owner,
                "sha256": sha256,
                "specialist": specialist,
                "size_bytes": size_bytes,
                "create_time": create_time,
            }
            for sha256, size_bytes in sorted(files.items())
        ]
        if rows:
            self._connection.execute(insert(tables.stored_files).on_conflict_do_nothing(), rows)

    def mark_deleted(self, owners: Collection[str], now: datetime) -> None:
        """Record that the files of datasets or adapters are no longer stored. The first time stays."""
        table = tables.stored_files
        known = (table.c.owner.in_(owners), table.c.delete_time.is_(None))
        self._connection.execute(update(table).where(*known).values(delete_time=now))

    def save_judging_time(self, judgement_id: str, specialist: str, seconds: float) -> None:
        row = {"judgement_id": judgement_id, "specialist": specialist, "seconds": seconds}
        self._connection.execute(insert(tables.judging_times).values(row).on_conflict_do_nothing())
