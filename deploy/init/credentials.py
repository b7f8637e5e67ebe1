"""The credentials of services, publishers and operators, which the one-shot init programs create in the stores."""

import json
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FILE = Path("/run/secrets/stores.json")


@dataclass(frozen=True)
class Credentials:
    """One identity's credentials for the stores; those that it does not have are empty."""

    s3_access_key: str = ""
    s3_secret_key: str = ""
    database_password: str = ""
    kafka_password: str = ""


def load_credentials(path: Path) -> dict[str, Credentials]:
    """Read the credentials by identity, from the file that `deploy.make_secrets` writes."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return {service: Credentials(**entry) for service, entry in entries.items()}
