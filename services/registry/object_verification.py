"""Whether stored objects are still what was stored."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile

from tailor.errors import NotFound
from tailor.logging import get_logger
from tailor.storage.buckets import CORPUS, DATASETS, DRAFTS, MODELS, REPORTS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

VERIFIED = (CORPUS, DATASETS, DRAFTS, MODELS, REPORTS)
# A file is named by its digest, the folder of a manifest by that of the manifest.
NAMED = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\.[a-z0-9]+|/manifest\.json)?$")


@dataclass
class VerifiedObjects:
    """Objects that were read, their bytes, those of them that no digest names, and the URI and digest of each damaged one.

    `last` is the place of the last one, as BUCKET/KEY; empty if there are no more.
    """

    objects: int = 0
    size_bytes: int = 0
    unnamed: int = 0
    damaged: list[tuple[str, str]] = field(default_factory=list)
    last: str = ""


def verify_objects(
    store: ObjectStore, after: str, seconds: float, clock: Callable[[], float] = time.monotonic
) -> VerifiedObjects:
    """Read the objects behind a place, for as many seconds, at least one. Blocks."""
    end, verified = clock() + seconds, VerifiedObjects()
    for bucket, key in _list(store, after):
        if verified.objects and clock() > end:
            return verified
        try:
            found = store.measure(bucket, key)
        except NotFound:
            # It was deleted meanwhile.
            continue
        named = NAMED.search(key)
        verified.objects += 1
        verified.size_bytes += found.size_bytes
        verified.unnamed += named is None
        verified.last = f"{bucket}/{key}"
        if named and named[1] != found.sha256:
            log.warning("object is damaged", uri=found.uri)
            verified.damaged.append((found.uri, named[1]))
    verified.last = ""
    return verified


def _list(store: ObjectStore, after: str) -> Iterator[tuple[str, str]]:
    """The objects behind a place, in the order of buckets and keys."""
    bucket, _, key = after.partition("/")
    for name in dropwhile(lambda name: name < bucket, VERIFIED):
        yield from ((name, found) for found in store.list_keys(name, "") if name > bucket or found > key)
