"""The tables as `baseline.sql` creates them. A change of the tables is another migration."""

from pathlib import Path

from alembic import op

revision, down_revision = "0300", None


def upgrade() -> None:
    op.execute(Path(__file__).with_name("baseline.sql").read_text(encoding="utf-8"))
