"""The tables of imports."""

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Integer, String, Table, func
from sqlalchemy.dialects.postgresql import JSONB

from services.synthetic.adapters.tables import metadata

imports = Table(
    "dataset_imports",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("licence", String(128), nullable=False),
    Column("share_percent", Integer, nullable=False),
    Column("source", String(200), nullable=False),
    Column("specialists", JSONB, nullable=False),
    Column("parts", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("rejected", JSONB, nullable=False, server_default="{}"),
    # Empty until the import is finished.
    Column("file_uri", String(512), nullable=False, server_default=""),
    Column("file_sha256", String(64), nullable=False, server_default=""),
    Column("file_size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

# The ids, for erasures, of the rows that contain surrogates, each with the number of its chunk.
import_texts = Table(
    "dataset_import_texts",
    metadata,
    Column("text_id", String(64), primary_key=True),
    Column("name", String(64), ForeignKey("dataset_imports.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("part", Integer, nullable=False),
)
