"""Creating the buckets, their lifecycle rules, and a key with a least-privilege policy for each service, in MinIO."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.policies import EXPIRY_RULES, policy_document

if TYPE_CHECKING:
    from minio import Minio, MinioAdmin


def apply_buckets(store: "Minio", prefix: str = "") -> None:
    """Create missing buckets, whose names begin with `prefix`, and set the lifecycle rules. Idempotent."""
    for bucket in BUCKETS:
        if not store.bucket_exists(prefix + bucket):
            store.make_bucket(prefix + bucket)
        if bucket in EXPIRY_RULES:
            store.set_bucket_lifecycle(prefix + bucket, _expiry(EXPIRY_RULES[bucket]))


def apply_keys(admin: "MinioAdmin", keys: Mapping[str, tuple[str, str]], prefix: str = "") -> None:
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
