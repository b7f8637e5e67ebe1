"""Create the buckets, their lifecycle rules, and a key with a least-privilege policy for each service; or check what somebody else created.

`--policies FOLDER` writes the policy of each service as JSON, for a store whose keys or roles are made with its own tools.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.init.credentials import DEFAULT_FILE, load_credentials
from tailor.settings import BUCKET_PREFIX, ServiceSettings
from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.checks import check_buckets, check_keys
from tailor.storage.policies import policy_document
from tailor.storage.provision import apply_buckets, apply_keys, open_admin
from tailor.storage.s3 import open_client


class Settings(BaseSettings):
    """The store's address, what to create there, its administrator's key, and the file with the services' credentials."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore", hide_input_in_errors=True)

    s3_endpoint: str = "127.0.0.1:9000"
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    s3_bucket_prefix: str = Field("", pattern=BUCKET_PREFIX)
    # `keys` creates buckets, rules and, by MinIO's admin interface, keys; `buckets` creates buckets and rules; `none` creates nothing.
    # What is not created is checked.
    s3_access: Literal["keys", "buckets", "none"] = "keys"
    # With `none`, a key that may read the buckets' rules, or empty for a role by web identity.
    s3_admin_access_key: str = ""
    s3_admin_secret_key: SecretStr = SecretStr("")
    stores_file: Path = DEFAULT_FILE

    def client(self, access_key: str, secret_key: str) -> Any:
        """A client with a key; without one, with the role that the environment names."""
        service = ServiceSettings(
            s3_endpoint=self.s3_endpoint,
            s3_secure=self.s3_secure,
            s3_region=self.s3_region,
            s3_access_key=access_key,
            s3_secret_key=SecretStr(secret_key),
        )
        return open_client(service)


def prepare(settings: Settings) -> list[str]:
    """Create what the settings say and check the rest. Returns what is missing or wrong, one sentence each."""
    prefix, credentials = settings.s3_bucket_prefix, load_credentials(settings.stores_file)
    admin = settings.client(settings.s3_admin_access_key, settings.s3_admin_secret_key.get_secret_value())
    if settings.s3_access == "keys":
        _, minio = open_admin(
            settings.s3_endpoint,
            settings.s3_admin_access_key,
            settings.s3_admin_secret_key.get_secret_value(),
            region=settings.s3_region,
            secure=settings.s3_secure,
        )
        apply_buckets(admin, prefix)
        apply_keys(
            minio, {name: (entry.s3_access_key, entry.s3_secret_key) for name, entry in credentials.items()}, prefix
        )
        return []
    if settings.s3_access == "buckets":
        apply_buckets(admin, prefix)
    stores = {
        service: settings.client(entry.s3_access_key, entry.s3_secret_key)
        for service, entry in credentials.items()
        if ACCESS.get(service) and entry.s3_access_key
    }
    sys.stdout.write(f"Checked {len(BUCKETS)} buckets and {len(stores)} keys of {sum(map(bool, ACCESS.values()))}.\n")
    return check_buckets(admin, prefix) + check_keys(stores, prefix)


def write_policies(folder: Path, prefix: str) -> None:
    """Write `SERVICE.json` for each service that has buckets."""
    folder.mkdir(parents=True, exist_ok=True)
    for service in filter(ACCESS.get, ACCESS):
        text = json.dumps(policy_document(service, prefix), indent=2)
        (folder / f"{service}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Read `TAILOR_S3_*` and the credentials file, and bring the store to the state that `tailor.storage` defines, or check it.

    Raises:
        SystemExit: with what is missing or wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m deploy.init.buckets", description=__doc__.splitlines()[0])
    parser.add_argument("--policies", type=Path, metavar="FOLDER", help="only write the policy of each service")
    arguments = parser.parse_args()
    settings = Settings()
    if arguments.policies:
        write_policies(arguments.policies, settings.s3_bucket_prefix)
        return
    problems = prepare(settings)
    if problems:
        raise SystemExit("\n".join(problems))
    sys.stdout.write(f"{len(BUCKETS)} buckets are ready.\n")


if __name__ == "__main__":
    main()
