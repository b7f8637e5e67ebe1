"""S3 policy documents of the services, and lifecycle rules of the buckets."""

from typing import Any

from tailor.storage.buckets import ACCESS, DRAFTS, QUARANTINE, Right, split_scope

OBJECT_ACTIONS: dict[Right, tuple[str, ...]] = {
    "r": ("s3:GetObject",),
    "w": ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"),
    "rw": (
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:ListMultipartUploadParts",
        "s3:PutObject",
    ),
}
BUCKET_ACTIONS: dict[Right, tuple[str, ...]] = {
    "r": ("s3:GetBucketLocation", "s3:ListBucket"),
    "w": ("s3:GetBucketLocation",),
    "rw": ("s3:GetBucketLocation", "s3:ListBucket"),
}

# Days until the object store deletes an object by itself. Anonymization empties quarantine much earlier.
EXPIRY_DAYS = {QUARANTINE: 7, DRAFTS: 30}
# Ingestion deletes the texts that it keeps for replays (TAILOR_KEEP_TEXT_DAYS) itself; behind that, the longest time allowed and a day.
MAX_KEPT_DAYS = 365
# The rules of a bucket: days by the prefix of keys.
EXPIRY_RULES = {
    QUARANTINE: {"documents/": EXPIRY_DAYS[QUARANTINE], "kept/": MAX_KEPT_DAYS + 1},
    DRAFTS: {"": EXPIRY_DAYS[DRAFTS]},
}


def policy_document(service: str, bucket_prefix: str = "") -> dict[str, Any]:
    """The S3 policy of a service's key. Do not call it for a service without buckets: S3 rejects an empty policy.

    A right on a prefix covers only its objects, but the keys of the whole bucket may be listed: without that right, a store answers that
    access is denied, not that an object is missing.
    """
    statements: list[dict[str, Any]] = []
    for scope, right in sorted(ACCESS[service].items()):
        bucket, prefix = split_scope(f"{bucket_prefix}{scope}")
        statements.append(_allow(BUCKET_ACTIONS[right], f"arn:aws:s3:::{bucket}"))
        statements.append(_allow(OBJECT_ACTIONS[right], f"arn:aws:s3:::{bucket}/{prefix}*"))
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(actions: tuple[str, ...], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": [resource]}
