"""Create the buckets, their lifecycle rules, and a key with a least-privilege policy for each service, in MinIO."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.init.credentials import DEFAULT_FILE, Credentials, load_credentials
from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.policies import EXPIRY_DAYS, policy_document


class Settings(BaseSettings):
    """The store's address, its administrator's key, and the file with the services' credentials."""

    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore")

    s3_endpoint: str = "127.0.0.1:9000"
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    s3_admin_access_key: str
    s3_admin_secret_key: SecretStr
    stores_file: Path = DEFAULT_FILE


class BucketStore(Protocol):
    """The methods of `minio.Minio` that this program uses."""

    def bucket_exists(self, bucket_name: str) -> bool:
        """True if the bucket exists."""
        ...

    def make_bucket(self, bucket_name: str) -> None:
        """Create a bucket."""
        ...

    def set_bucket_lifecycle(self, bucket_name: str, config: Any) -> None:
        """Replace a bucket's lifecycle rules."""
        ...


class BucketAdmin(Protocol):
    """The methods of `minio.MinioAdmin` that this program uses."""

    def user_add(self, access_key: str, secret_key: str) -> Any:
        """Create a user, or change its secret."""
        ...

    def policy_add(self, policy_name: str, *, policy: dict[str, Any]) -> Any:
        """Create or replace a policy."""
        ...

    def policy_set(self, policy_name: str, user: str) -> Any:
        """Make this the only policy of a user."""
        ...


def apply_buckets(store: BucketStore) -> None:
    """Create missing buckets and set the lifecycle rules. Idempotent."""
    for bucket in BUCKETS:
        if not store.bucket_exists(bucket):
            store.make_bucket(bucket)
        if bucket in EXPIRY_DAYS:
            store.set_bucket_lifecycle(bucket, _expiry(EXPIRY_DAYS[bucket]))


def apply_keys(admin: BucketAdmin, credentials: Mapping[str, Credentials]) -> None:
    """Create or update a user and a policy for each service that has buckets. Raises KeyError if one has no credentials."""
    for service, buckets in ACCESS.items():
        if not buckets:
            continue
        entry = credentials[service]
        admin.user_add(entry.s3_access_key, entry.s3_secret_key)
        admin.policy_add(f"tailor-{service}", policy=policy_document(service))
        admin.policy_set(f"tailor-{service}", user=entry.s3_access_key)


def _expiry(days: int) -> Any:
    from minio.commonconfig import ENABLED, Filter
    from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

    return LifecycleConfig(
        [Rule(status=ENABLED, rule_filter=Filter(prefix=""), rule_id="expire", expiration=Expiration(days=days))]
    )


def main() -> None:
    """Read `TAILOR_S3_*` and the credentials file, and bring the store to the state that `tailor.storage` defines."""
    from minio import Minio, MinioAdmin
    from minio.credentials import StaticProvider

    settings = Settings()
    secret = settings.s3_admin_secret_key.get_secret_value()
    store = Minio(
        settings.s3_endpoint,
        access_key=settings.s3_admin_access_key,
        secret_key=secret,
        secure=settings.s3_secure,
        region=settings.s3_region,
    )
    admin = MinioAdmin(
        endpoint=settings.s3_endpoint,
        credentials=StaticProvider(settings.s3_admin_access_key, secret),
        region=settings.s3_region,
        secure=settings.s3_secure,
    )
    apply_buckets(store)
    apply_keys(admin, load_credentials(settings.stores_file))
    sys.stdout.write(f"{len(BUCKETS)} buckets, {sum(map(bool, ACCESS.values()))} keys\n")


if __name__ == "__main__":
    main()
