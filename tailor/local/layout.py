"""The paths of one stack, and the names of its components."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Set in the environment of every process of a stack, so that leftover processes can be found.
STATE_DIR_MARK = "TAILOR_STACK_DIR"
COMPONENT_MARK = "TAILOR_COMPONENT"

BROKER = "broker"
STORE = "store"
DATABASE = "database"
STORES = (BROKER, STORE, DATABASE)
SERVICES = ("ingestion", "anonymization", "synthetic", "registry", "training", "evaluation", "inference", "console")
WITH_DATABASE = ("ingestion", "anonymization", "synthetic", "training", "evaluation", "registry")


@dataclass(frozen=True)
class Layout:
    """The paths of one state directory, which must be absolute."""

    root: Path

    @property
    def stack_file(self) -> Path:
        """The stack's current state."""
        return self.root / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Locked by the supervisor, and by its guard until the last process has ended."""
        return self.root / "supervisor.lock"

    @property
    def compute_lock_file(self) -> Path:
        """Locked by training or by inference while it computes."""
        return self.root / "compute.lock"

    @property
    def secrets(self) -> Path:
        """Keys and passwords. Only the owner can read them."""
        return self.root / "secrets"

    @property
    def settings_file(self) -> Path:
        """The owner's settings for services, optional: a table per service, in it a key for each TAILOR_<KEY>."""
        return self.root / "settings.toml"

    @property
    def chosen_stores_file(self) -> Path:
        """The own stores that the last `tailor up` was given by options."""
        return self.secrets / "stores.toml"

    @property
    def stores_file(self) -> Path:
        """The credentials of every identity at the stores, for the administrator of own stores."""
        return self.secrets / "stores.json"

    def kafka_password_file(self, user: str) -> Path:
        """The password of a user at an own Kafka, for commands of the shell."""
        return self.secrets / f"kafka-{user}.password"

    @property
    def kcat_file(self) -> Path:
        """How kcat reaches an own Kafka as the publisher. There is none for the embedded broker, which asks nobody."""
        return self.secrets / "kcat.conf"

    @property
    def operator_key_file(self) -> Path:
        """The API key of the first operator."""
        return self.secrets / "operator.key"

    @property
    def protection_key_file(self) -> Path:
        """The first API key of data protection."""
        return self.secrets / "protection.key"

    @property
    def console_password_file(self) -> Path:
        """The console's login password."""
        return self.secrets / "console.password"

    def data(self, store: str) -> Path:
        """The data directory of the broker, the object store or the database."""
        return self.root / store

    def scratch(self, component: str) -> Path:
        """The working directory of a component. Its content may be deleted between starts."""
        return self.root / "scratch" / component

    def log_file(self, component: str) -> Path:
        """The log of a component's output."""
        return self.root / "logs" / f"{component}.log"
