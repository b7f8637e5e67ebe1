"""Create the buckets, their lifecycle rules, and a key with a least-privilege policy for each service, in MinIO."""

import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.init.credentials import DEFAULT_FILE, load_credentials
from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.provision import apply_buckets, apply_keys, open_admin


class Settings(BaseSettings):
    """The store's address, its administrator's key, and the file with the services' credentials."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore", hide_input_in_errors=True)

    s3_endpoint: str = "127.0.0.1:9000"
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    s3_admin_access_key: str
    s3_admin_secret_key: SecretStr
    stores_file: Path = DEFAULT_FILE


def main() -> None:
    """Read `TAILOR_S3_*` and the credentials file, and bring the store to the state that `tailor.storage` defines."""
    settings = Settings()
    store, admin = open_admin(
        settings.s3_endpoint,
        settings.s3_admin_access_key,
        settings.s3_admin_secret_key.get_secret_value(),
        region=settings.s3_region,
        secure=settings.s3_secure,
    )
    apply_buckets(store)
    credentials = load_credentials(settings.stores_file)
    apply_keys(admin, {name: (entry.s3_access_key, entry.s3_secret_key) for name, entry in credentials.items()})
    sys.stdout.write(f"{len(BUCKETS)} buckets, {sum(map(bool, ACCESS.values()))} keys\n")


if __name__ == "__main__":
    main()
