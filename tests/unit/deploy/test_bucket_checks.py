"""Checks of an object store that an operator prepared by hand: each thing that is missing, or allowed too much, is reported."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from minio.versioningconfig import VersioningConfig

from deploy.init import buckets as program
from tailor.storage.buckets import ACCESS, BUCKETS, DRAFTS, QUARANTINE, Right, split_scope
from tailor.storage.checks import check_buckets, check_keys
from tailor.storage.policies import EXPIRY_RULES, policy_document


def refusal(code: str) -> S3Error:
    return S3Error(None, code, "no", "any", "any", "any")


@dataclass
class Key:
    """A store as one key sees it: the rights by scope, as in `ACCESS`. Objects in memory."""

    rights: Mapping[str, Right]
    present: tuple[str, ...] = BUCKETS
    objects: set[str] = field(default_factory=set)

    def _check(self, path: str, right: str) -> None:
        if path.partition("/")[0] not in self.present:
            raise refusal("NoSuchBucket")
        if not any(path.startswith(scope.rstrip("/")) and right in rights for scope, rights in self.rights.items()):
            raise refusal("AccessDenied")

    def list_objects(self, bucket_name: str, prefix: str = "", **_: Any) -> Iterator[Any]:
        if not any(split_scope(scope)[0] == bucket_name and "r" in right for scope, right in self.rights.items()):
            raise refusal("AccessDenied")
        yield from ()

    def put_object(self, bucket_name: str, object_name: str, _data: Any, _length: int) -> None:
        self._check(f"{bucket_name}/{object_name}", "w")
        self.objects.add(f"{bucket_name}/{object_name}")

    def stat_object(self, bucket_name: str, object_name: str) -> None:
        self._check(f"{bucket_name}/{object_name}", "r")

    def remove_object(self, bucket_name: str, object_name: str) -> None:
        self._check(f"{bucket_name}/{object_name}", "w")
        self.objects.discard(f"{bucket_name}/{object_name}")

    def bucket_exists(self, bucket_name: str) -> bool:
        return bucket_name in self.present

    def get_bucket_lifecycle(self, bucket_name: str) -> LifecycleConfig | None:
        raise NotImplementedError

    def get_bucket_versioning(self, bucket_name: str) -> VersioningConfig:
        raise NotImplementedError


@dataclass
class Auditor(Key):
    """A store as a key sees it that reads the buckets' settings."""

    rules: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: EXPIRY_RULES)
    versioned: tuple[str, ...] = ()

    def get_bucket_lifecycle(self, bucket_name: str) -> LifecycleConfig | None:
        rules = [
            Rule(ENABLED, rule_filter=Filter(prefix=prefix), rule_id=f"{number}", expiration=Expiration(days=days))
            for number, (prefix, days) in enumerate(self.rules.get(bucket_name, {}).items())
        ]
        return LifecycleConfig(rules) if rules else None

    def get_bucket_versioning(self, bucket_name: str) -> VersioningConfig:
        return VersioningConfig(ENABLED if bucket_name in self.versioned else None)


def keys(**changed: Mapping[str, Right]) -> dict[str, Key]:
    return {name: Key({**rights, **changed.get(name, {})}) for name, rights in ACCESS.items() if rights}


def test_a_store_as_the_design_wants_it_has_no_problem_and_keeps_nothing() -> None:
    stores = keys()
    assert check_keys(stores) == []
    assert check_buckets(Auditor({})) == []
    assert [store.objects for store in stores.values()] == [set()] * len(stores)


def test_a_missing_bucket_is_named_with_its_prefix() -> None:
    present = tuple(f"acme-{name}" for name in BUCKETS if name != DRAFTS)
    rules = {f"acme-{name}": days for name, days in EXPIRY_RULES.items()}
    assert check_buckets(Auditor({}, present, rules=rules), "acme-") == [
        "bucket acme-drafts: it does not exist, or this key may not see it. Create it."
    ]


def test_a_bucket_without_its_rule_or_with_versions_is_named() -> None:
    rules = {QUARANTINE: {"documents/": 30, "kept/": 366}, "corpus": {"": 90}}
    assert check_buckets(Auditor({}, rules=rules, versioned=(DRAFTS,))) == [
        "bucket quarantine: a rule deletes only after 30 days the objects under documents/. Set a lifecycle rule of 7 days.",
        "bucket corpus: a rule deletes its objects after 90 days. Remove the rule.",
        "bucket drafts: it keeps earlier versions, so erased texts would stay. Suspend versioning, and delete the versions.",
        "bucket drafts: no rule deletes the objects under /. Set a lifecycle rule of 30 days.",
    ]


def test_one_rule_for_a_whole_bucket_is_enough() -> None:
    assert check_buckets(Auditor({}, rules={QUARANTINE: {"": 7}, DRAFTS: {"": 30}})) == []


def test_a_right_that_is_missing_is_named() -> None:
    assert check_keys(keys(evaluation={"reports": "r"})) == [
        "key of evaluation: it cannot write to reports: the store refuses it (AccessDenied)"
    ]


def test_a_key_that_the_store_does_not_know_is_named_once() -> None:
    class Unknown(Key):
        def list_objects(self, bucket_name: str, prefix: str = "", **_: Any) -> Iterator[Any]:
            raise refusal("InvalidAccessKeyId")

    assert check_keys({"inference": Unknown({})}) == [
        "key of inference: the store does not know it. Create it with the policy of inference."
    ]


def test_a_right_beyond_the_table_is_named() -> None:
    problems = check_keys(keys(synthetic={QUARANTINE: "r"}, registry={"reports": "rw"}))
    assert problems[0] == "key of synthetic: it may list quarantine. Take that right away."
    assert problems[1].startswith(
        "key of registry: it may write to reports. Take that right away, and delete tailor-check/"
    )


def test_a_store_that_does_not_answer_is_a_problem_of_each_bucket() -> None:
    class Away(Auditor):
        def bucket_exists(self, bucket_name: str) -> bool:
            raise ConnectionRefusedError

    assert check_buckets(Away({}))[0] == "bucket quarantine: the store answers ConnectionRefusedError"


def test_the_policies_of_all_services_are_written_for_other_stores(tmp_path: Path) -> None:
    program.write_policies(tmp_path, "acme-")
    assert {path.stem for path in tmp_path.iterdir()} == {name for name, rights in ACCESS.items() if rights}
    written = json.loads((tmp_path / "inference.json").read_text(encoding="utf-8"))
    assert written == policy_document("inference", "acme-")
    assert "arn:aws:s3:::acme-models/*" in str(written)


def test_the_program_ends_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stores.json").write_text(
        '{"inference": {"s3_access_key": "a", "s3_secret_key": "b"}}', encoding="utf-8"
    )
    variables = {"S3_ENDPOINT": "127.0.0.1:1", "S3_ACCESS": "none", "STORES_FILE": str(tmp_path / "stores.json")}
    for name, value in variables.items():
        monkeypatch.setenv(f"TAILOR_{name}", value)
    monkeypatch.setattr(sys, "argv", ["buckets"])
    with pytest.raises(SystemExit, match="bucket quarantine: the store answers MaxRetryError"):
        program.main()
