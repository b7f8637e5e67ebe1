"""Your own Kafka, object store or database in the place of an embedded one: the `[stores]` table of the settings file.

An own store's embedded counterpart does not start. With an administrator's credentials, `tailor up` makes there what Tailor needs: topics,
users and their rules; buckets and keys; roles and databases. Without them, an administrator makes it with `python -m deploy.init.*` from
the credentials in `secrets/stores.json`.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tailor.errors import InvalidArgument, Reason
from tailor.events.access import KafkaNames
from tailor.events.provision import TopicPlan
from tailor.local.layout import BROKER, DATABASE, STORE, Layout
from tailor.settings import BUCKET_PREFIX

TABLE = "stores"
ADDRESS = r"^[^\s,:/]+:\d{1,5}(,[^\s,:/]+:\d{1,5})*$"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OwnKafka(_Table):
    """`[stores.kafka]`. The users' names and passwords are made by Tailor, unless `sasl_mechanism` is empty."""

    bootstrap_servers: str = Field(pattern=ADDRESS)
    # The listener of publishers and of `tailor event read`, if it is not the services'.
    outside_servers: str = Field("", pattern=f"^$|{ADDRESS}")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    ca_file: Path | None = None
    admin_username: str = ""
    admin_password: SecretStr = SecretStr("")
    # The administrator may sign in by another mechanism than the users.
    admin_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    principal: str = "User:tailor-{name}"
    topic_prefix: str = ""
    group_prefix: str = ""
    replication_factor: int = Field(3, ge=1, le=9)
    min_insync_replicas: int = Field(2, ge=1, le=9)
    partitions: dict[str, int] = Field(default_factory=dict)

    @property
    def has_users(self) -> bool:
        """True if the broker asks for a user and a password."""
        return self.security_protocol.startswith("SASL")

    @property
    def names(self) -> KafkaNames:
        """The names of the installation at the broker."""
        return KafkaNames(self.principal, self.topic_prefix, self.group_prefix)

    @property
    def plan(self) -> TopicPlan:
        """How the topics are laid out."""
        return TopicPlan(self.replication_factor, self.min_insync_replicas, self.topic_prefix, self.partitions)


class OwnStore(_Table):
    """`[stores.s3]`. The administrator's key is for MinIO's admin interface; another store gets its keys from its own administrator."""

    endpoint: str = Field(pattern=ADDRESS)
    secure: bool = False
    region: str = "us-east-1"
    bucket_prefix: str = Field("", pattern=BUCKET_PREFIX)
    admin_access_key: str = ""
    admin_secret_key: SecretStr = SecretStr("")


class OwnDatabase(_Table):
    """`[stores.database]`."""

    address: str = Field(pattern=ADDRESS)
    admin_username: str = "postgres"
    admin_password: SecretStr = SecretStr("")
    admin_database: str = "postgres"


class OwnStores(_Table):
    """The stores that are not embedded."""

    kafka: OwnKafka | None = None
    s3: OwnStore | None = None
    database: OwnDatabase | None = None

    @property
    def embedded(self) -> dict[str, bool]:
        """Whether the broker, the object store and the database are embedded."""
        return {BROKER: self.kafka is None, STORE: self.s3 is None, DATABASE: self.database is None}


def load_own_stores(layout: Layout) -> OwnStores:
    """The stores of the settings file, and over them those of the last `tailor up`. Raises InvalidArgument, naming the field."""
    tables: dict[str, Any] = {}
    for path in (layout.settings_file, layout.chosen_stores_file):
        tables |= _read(path)
    return parse_own_stores(tables, layout.settings_file)


def parse_own_stores(tables: Mapping[str, Any], source: Path) -> OwnStores:
    """Check the tables of the stores. Raises InvalidArgument, naming the field and its source."""
    try:
        return OwnStores.model_validate(dict(tables))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([TABLE, *map(str, first["loc"])])
        raise InvalidArgument(Reason.INVALID_SETTINGS_FILE, f"{source}: {place}: {first['msg']}.") from None


def choose_stores(layout: Layout, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the stores that `tailor up` was given, in a file that only its owner can read. None of them are kept from an earlier one."""
    from tailor.local.secrets import write

    layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not tables:
        layout.chosen_stores_file.unlink(missing_ok=True)
        return
    parse_own_stores(tables, Path("options"))
    lines = []
    for name, table in tables.items():
        # A JSON string is a TOML string too.
        lines += [f"[{TABLE}.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    write(layout.chosen_stores_file, "\n".join(lines) + "\n")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get(TABLE, {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(Reason.INVALID_SETTINGS_FILE, f"{path} is not TOML: {error}.") from None
    return dict(table)
