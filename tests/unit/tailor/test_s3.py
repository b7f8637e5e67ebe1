"""Invalid object names, which never reach a store."""

import pytest
import urllib3
from minio import Minio

from tailor.errors import NotFound
from tailor.storage.s3 import S3Store


@pytest.mark.parametrize("key", ["../secrets/manifest.json", "bases/./manifest.json", "", "\ud800/manifest.json"])
def test_an_invalid_object_name_is_not_found(key: str) -> None:
    nowhere = urllib3.PoolManager(retries=False, timeout=0.2)
    store = S3Store(Minio("127.0.0.1:1", "key", "secret", secure=False, region="here", http_client=nowhere))
    with pytest.raises(NotFound):
        store.read("datasets", key)
