"""Creating the buckets, their lifecycle rules, and a key with a least-privilege policy for each service, in MinIO."""

from collections.abc import Mapping
from typing import Any, Protocol

from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.policies import EXPIRY_RULES, policy_document


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


def apply_buckets(store: BucketStore, prefix: str = "") -> None:
    """Create missing buckets, whose names begin with `prefix`, and set the lifecycle rules. Idempotent."""
    for bucket in BUCKETS:
        if not store.bucket_exists(prefix + bucket):
            store.make_bucket(prefix + bucket)
        if bucket in EXPIRY_RULES:
            store.set_bucket_lifecycle(prefix + bucket, _expiry(EXPIRY_RULES[bucket]))


def apply_keys(admin: BucketAdmin, keys: Mapping[str, tuple[str, str]], prefix: str = "") -> None:
    """Create or update a user and a policy for each service that has buckets. Raises KeyError if one has no key.

    `keys` are the access key and the secret key by service.
    """
    for service, buckets in ACCESS.items():
        if not buckets:
            continue
        access_key, secret_key = keys[service]
        admin.user_add(access_key, secret_key)
        # Installations that share a store have a policy each.
        name = f"{prefix}tailor-{service}"
        admin.policy_add(name, policy=policy_document(service, prefix))
        admin.policy_set(name, user=access_key)


def _expiry(days_by_prefix: Mapping[str, int]) -> Any:
    from minio.commonconfig import ENABLED, Filter
    from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

    rules = [
        Rule(
            status=ENABLED,
            rule_filter=Filter(prefix=prefix),
            rule_id=f"expire-{prefix.rstrip('/')}".rstrip("-"),
            expiration=Expiration(days=days),
        )
        for prefix, days in days_by_prefix.items()
    ]
    return LifecycleConfig(rules)


def open_admin(endpoint: str, access_key: str, secret_key: str, *, region: str, secure: bool) -> tuple[Any, Any]:
    """The administrator's clients for the S3 interface and for MinIO's own. Does not connect yet."""
    from minio import Minio, MinioAdmin
    from minio.credentials import StaticProvider

    store = Minio(endpoint, access_key=access_key, secret_key=secret_key, secure=secure, region=region)
    provider = StaticProvider(access_key, secret_key)
    return store, MinioAdmin(endpoint=endpoint, credentials=provider, region=region, secure=secure)
