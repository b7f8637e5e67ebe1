"""The init program for buckets, and the policies of the services' keys."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from tailor.storage.buckets import ACCESS, BUCKETS, DRAFTS, MODELS, QUARANTINE, split_scope
from tailor.storage.policies import policy_document
from tailor.storage.provision import apply_buckets, apply_keys

KEYS = {name: (f"key-{name}", f"secret-{name}") for name in ACCESS}


class FakeStore:
    """Buckets and their rules in memory."""

    def __init__(self) -> None:
        self.buckets: list[str] = []
        self.expiry_days: dict[str, dict[str, int]] = {}

    def bucket_exists(self, bucket_name: str) -> bool:
        return bucket_name in self.buckets

    def make_bucket(self, bucket_name: str) -> None:
        assert bucket_name not in self.buckets
        self.buckets.append(bucket_name)

    def set_bucket_lifecycle(self, bucket_name: str, config: Any) -> None:
        self.expiry_days[bucket_name] = {rule.rule_filter.prefix: rule.expiration.days for rule in config.rules}


class FakeAdmin:
    """Users and policies in memory."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self.policy_of: dict[str, str] = {}

    def user_add(self, access_key: str, secret_key: str) -> None:
        self.users[access_key] = secret_key

    def policy_add(self, policy_name: str, *, policy: dict[str, Any]) -> None:
        self.policies[policy_name] = policy

    def policy_set(self, policy_name: str, user: str) -> None:
        assert user in self.users
        assert policy_name in self.policies
        self.policy_of[user] = policy_name


def allowed(service: str, action: str, bucket: str, key: str = "any/key") -> bool:
    """True if the service's policy allows an action on the bucket or on an object in it."""
    objects = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"]
    return any(
        action in statement["Action"] and any(fnmatchcase(name, pattern) for name in objects)
        for statement in policy_document(service)["Statement"]
        for pattern in statement["Resource"]
    )


def right_on(service: str, bucket: str, key: str) -> str:
    """The table's right on an object."""
    return "".join(right for scope, right in ACCESS[service].items() if f"{bucket}/{key}".startswith(f"{scope}"))


@pytest.mark.parametrize("service", ACCESS)
def test_a_policy_allows_what_the_access_table_says_and_nothing_more(service: str) -> None:
    for bucket in BUCKETS:
        for key in ("any/key", "bases/tiny/manifest.json"):
            right = right_on(service, bucket, key)
            assert allowed(service, "s3:GetObject", bucket, key) == ("r" in right)
            assert allowed(service, "s3:PutObject", bucket, key) == ("w" in right)
            assert allowed(service, "s3:DeleteObject", bucket, key) == (right == "rw")
        reads = any(split_scope(scope)[0] == bucket and "r" in right for scope, right in ACCESS[service].items())
        assert allowed(service, "s3:ListBucket", bucket) == reads
    assert "s3:*" not in str(policy_document(service))


def test_synthetic_reads_bases_but_no_adapters() -> None:
    assert allowed("synthetic", "s3:GetObject", MODELS, "bases/files/0a")
    assert not allowed("synthetic", "s3:GetObject", MODELS, "adapters/0a/manifest.json")
    assert not allowed("synthetic", "s3:PutObject", MODELS, "bases/tiny/manifest.json")


def test_only_ingestion_and_anonymization_reach_quarantine() -> None:
    assert {service for service in ACCESS if allowed(service, "s3:GetObject", QUARANTINE)} == {
        "ingestion",
        "anonymization",
    }


def test_creates_every_bucket_once_with_its_rules() -> None:
    store = FakeStore()
    apply_buckets(store)
    apply_buckets(store)
    assert store.buckets == list(BUCKETS)
    assert set(store.expiry_days) == {QUARANTINE, DRAFTS}
    assert store.expiry_days[QUARANTINE] == {"documents/": 7, "kept/": 366} and store.expiry_days[DRAFTS] == {"": 30}


def test_installations_that_share_a_store_have_buckets_and_policies_of_their_own() -> None:
    store, admin = FakeStore(), FakeAdmin()
    apply_buckets(store, "acme-")
    apply_keys(admin, KEYS, "acme-")
    assert store.buckets == [f"acme-{bucket}" for bucket in BUCKETS]
    assert set(store.expiry_days) == {f"acme-{QUARANTINE}", f"acme-{DRAFTS}"}
    assert admin.policies["acme-tailor-synthetic"] == policy_document("synthetic", "acme-")
    resources = {name for part in policy_document("synthetic", "acme-")["Statement"] for name in part["Resource"]}
    assert "arn:aws:s3:::acme-models/bases/*" in resources
    assert all(name.startswith("arn:aws:s3:::acme-") for name in resources)


def test_every_service_with_buckets_gets_a_key_with_its_own_policy() -> None:
    admin = FakeAdmin()
    apply_keys(admin, KEYS)
    apply_keys(admin, KEYS)
    assert admin.policy_of == {f"key-{service}": f"tailor-{service}" for service, buckets in ACCESS.items() if buckets}
    assert admin.policies["tailor-inference"] == policy_document("inference")
