"""Where everything of one stack lies, and what it is made of."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# In the environment of every process of a stack: how whatever is left of one is found.
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
        """The state, readable by anybody who wants to know."""
        return self.root / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held by the one supervisor, and by its guard until nothing is left of it."""
        return self.root / "supervisor.lock"

    @property
    def compute_lock_file(self) -> Path:
        """Held by whichever of training and generation has its turn."""
        return self.root / "compute.lock"

    @property
    def secrets(self) -> Path:
        """Keys and passwords, for the owner alone."""
        return self.root / "secrets"

    @property
    def settings_file(self) -> Path:
        """The owner's own settings of the services, if there are any: a table per service, a key per TAILOR_<KEY>."""
        return self.root / "settings.toml"

    @property
    def operator_key_file(self) -> Path:
        """The API key of the first operator."""
        return self.secrets / "operator.key"

    @property
    def console_password_file(self) -> Path:
        """The console's login password."""
        return self.secrets / "console.password"

    def data(self, store: str) -> Path:
        """Data of the broker, the object store or the database."""
        return self.root / store

    def scratch(self, component: str) -> Path:
        """Working directory of a component; nothing in it has to last."""
        return self.root / "scratch" / component

    def log_file(self, component: str) -> Path:
        """Output of a component."""
        return self.root / "logs" / f"{component}.log"
