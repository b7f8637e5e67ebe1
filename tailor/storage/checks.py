"""Checks of an object store that somebody else prepared: its buckets, their rules, and what each service's key may do.

A key is tried by writing an object below `tailor-check/`, which is deleted at once; a key that may only read must be refused.
"""

import io
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from tailor.storage.buckets import ACCESS, BUCKETS, Right, split_scope
from tailor.storage.policies import EXPIRY_RULES
from tailor.storage.s3 import MISSING, REFUSED

CHECK_FOLDER = "tailor-check"
UNKNOWN_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
# S3's answers about a bucket that has no rules.
WITHOUT_RULES = {"NoSuchLifecycleConfiguration"}


def check_buckets(store: Minio, prefix: str = "") -> list[str]:
    """Errors of the buckets, one sentence each. The key needs to read their rules and whether they keep versions."""
    problems = []
    for bucket in BUCKETS:
        name = prefix + bucket
        try:
            if not store.bucket_exists(name):
                problems.append(f"bucket {name}: it does not exist, or this key may not see it. Create it.")
                continue
            problems += [f"bucket {name}: {problem}" for problem in _check_rules(store, bucket, name)]
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            problems.append(f"bucket {name}: {_explain(error)}")
    return problems


def check_keys(stores: Mapping[str, Minio], prefix: str = "") -> list[str]:
    """Rights that each service's key lacks or has too many, one sentence each. `stores` are clients with the services' own keys."""
    problems = []
    for service, store in stores.items():
        if not _is_known(store, prefix):
            problems.append(f"key of {service}: the store does not know it. Create it with the policy of {service}.")
            continue
        for bucket in BUCKETS:
            scopes = [(scope, right) for scope, right in ACCESS[service].items() if split_scope(scope)[0] == bucket]
            key_problems = [problem for scope, right in scopes for problem in _check_scope(store, scope, right, prefix)]
            if not scopes and not _is_refused(lambda name=prefix + bucket, store=store: _list(store, name, "")):  # type: ignore[misc]
                key_problems = [f"it may list {prefix}{bucket}. Take that right away."]
            problems += [f"key of {service}: {problem}" for problem in key_problems]
    return problems


def _is_known(store: Minio, prefix: str) -> bool:
    try:
        _list(store, prefix + BUCKETS[0], "")
    except S3Error as error:
        return error.code not in UNKNOWN_KEY
    except (MinioException, urllib3.exceptions.HTTPError, OSError):
        pass
    return True


def _check_scope(store: Minio, scope: str, right: Right, prefix: str) -> list[str]:
    bucket, folder = split_scope(f"{prefix}{scope}")
    key = f"{folder}{CHECK_FOLDER}/{secrets.token_hex(8)}"
    problems = []
    if "r" in right:
        failure = _failure(lambda: _list(store, bucket, folder))
        problems += [f"it cannot list {bucket}: {failure}"] if failure else []
    written = _failure(lambda: store.put_object(bucket, key, io.BytesIO(b"check"), len(b"check")))
    if "w" not in right:
        if written is None:
            problems.append(f"it may write to {bucket}. Take that right away, and delete {key} there.")
        return problems
    if written is not None:
        return [*problems, f"it cannot write to {bucket}: {written}"]
    steps: list[tuple[str, Callable[[], Any]]] = []
    if "r" in right:
        steps = [
            ("read from", lambda: store.stat_object(bucket, key)),
            ("delete from", lambda: store.remove_object(bucket, key)),
        ]
    for verb, step in steps:
        failure = _failure(step)
        problems += [f"it cannot {verb} {bucket}: {failure}"] if failure else []
    return problems


def _check_rules(store: Minio, bucket: str, name: str) -> Iterator[str]:
    if getattr(store.get_bucket_versioning(name), "status", None) == "Enabled":
        yield "it keeps earlier versions, so erased texts would stay. Suspend versioning, and delete the versions."
    actual = _expiry_days(store, name)
    expected = EXPIRY_RULES.get(bucket, {})
    if actual and not expected:
        yield f"a rule deletes its objects after {min(actual.values())} days. Remove the rule."
    for folder, days in expected.items():
        first = min((after for prefix, after in actual.items() if folder.startswith(prefix)), default=None)
        if first is None or first > days:
            has = "no rule deletes" if first is None else f"a rule deletes only after {first} days"
            yield f"{has} the objects under {folder or '/'}. Set a lifecycle rule of {days} days."


def _expiry_days(store: Minio, name: str) -> dict[str, int]:
    """Days until deletion by the prefix of keys, of the enabled rules that hold for all objects below it."""
    try:
        config = store.get_bucket_lifecycle(name)
    except S3Error as error:
        if error.code in WITHOUT_RULES:
            return {}
        raise
    days: dict[str, int] = {}
    for rule in getattr(config, "rules", None) or []:
        place = rule.rule_filter
        is_whole = place is None or (place.and_operator is None and place.tag is None)
        if rule.status == "Enabled" and is_whole and rule.expiration and rule.expiration.days:
            days[(place.prefix if place else "") or ""] = rule.expiration.days
    return days


def _list(store: Minio, bucket: str, folder: str) -> None:
    next(iter(store.list_objects(bucket, prefix=folder)), None)


def _failure(step: Callable[[], Any]) -> str | None:
    try:
        step()
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        return _explain(error)
    return None


def _is_refused(step: Callable[[], Any]) -> bool:
    """True unless the store lets it happen. A bucket that does not exist counts as refused."""
    return _failure(step) is not None


def _explain(error: Exception) -> str:
    code = error.code if isinstance(error, S3Error) else type(error).__name__
    if code in MISSING:
        return "it does not exist"
    return f"the store refuses it ({code})" if code in REFUSED else f"the store answers {code}"
