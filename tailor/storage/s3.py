"""The object store over S3, through the minio client, with keys or by web identity."""

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.credentials import Credentials, Provider, WebIdentityProvider
from minio.error import MinioException, S3Error

from tailor.errors import FailedPrecondition, NotFound, PermissionDenied, Reason, Unavailable
from tailor.settings import ServiceSettings
from tailor.storage.buckets import BASES
from tailor.storage.file_cache import FileCache
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object

SESSION = "tailor"
TIMEOUT = urllib3.Timeout(connect=3, read=15)
MAX_TOKEN_BYTES = 64 * 1024


class WebIdentity(Provider):  # type: ignore[misc]
    """The keys of a role. Asks for new ones before they end. Thread-safe; blocks while it asks.

    The token's file is read each time, because the cluster replaces it. Raises Unavailable (OBJECT_STORE_LOGIN_REFUSED,
    OBJECT_STORE_UNAVAILABLE).
    """

    def __init__(self, token_file: Path, role: str, endpoint: str) -> None:
        self._token_file = token_file
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._keys = WebIdentityProvider(
            jwt_provider_func=self._token,
            sts_endpoint=endpoint,
            role_arn=role or None,
            role_session_name=SESSION,
            http_client=_TokenService(endpoint),
        )

    def retrieve(self) -> Credentials:
        with self._lock:
            try:
                return self._keys.retrieve()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise Unavailable(
                    Reason.OBJECT_STORE_UNAVAILABLE,
                    f"The token service {self._endpoint} does not answer ({type(error).__name__}).",
                ) from None
            except (ValueError, SyntaxError):
                # Not the library's words: they could hold the token. ElementTree reports broken XML as a SyntaxError.
                raise Unavailable(
                    Reason.OBJECT_STORE_LOGIN_REFUSED, f"The token service {self._endpoint} answered without keys."
                ) from None

    def _token(self) -> dict[str, str]:
        try:
            with self._token_file.open(encoding="ascii") as file:
                return {"access_token": file.read(MAX_TOKEN_BYTES).strip()}
        except OSError:
            raise Unavailable(
                Reason.OBJECT_STORE_LOGIN_REFUSED, f"The token {self._token_file} cannot be read."
            ) from None


class _TokenService(urllib3.PoolManager):
    """Sends minio's parameters as a form: what is in a URL, proxies log. Does not retry, as urllib3 logs the URL then."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(timeout=TIMEOUT, retries=urllib3.Retry(total=0))
        self._endpoint = endpoint

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **arguments: Any
    ) -> urllib3.BaseHTTPResponse:
        address, _, form = url.partition("?")
        arguments |= {"body": form, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}
        response = super().urlopen(method, address, redirect=False, **arguments)
        if 300 <= response.status < 500:
            raise Unavailable(
                Reason.OBJECT_STORE_LOGIN_REFUSED,
                f"The token service {self._endpoint} answered {response.status}. Check the role and whom it trusts.",
            )
        if response.status >= 500:
            raise Unavailable(
                Reason.OBJECT_STORE_UNAVAILABLE, f"The token service {self._endpoint} answered {response.status}."
            )
        return response


CHUNK_BYTES = 1024 * 1024
# Where bases keep their files, by digest.
BASE_FILES = f"{BASES}files/"
MISSING = {"NoSuchKey", "NoSuchObject", "NoSuchBucket"}
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


@contextmanager
def _wrap_errors(bucket: str, key: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in MISSING:
            raise NotFound(Reason.UNKNOWN_OBJECT, "The object does not exist.", bucket=bucket, key=key) from None
        if error.code in REFUSED:
            raise PermissionDenied(
                Reason.OBJECT_STORE_REFUSED,
                "The service's credentials do not allow access to this bucket.",
                bucket=bucket,
            ) from None
        raise Unavailable(
            Reason.OBJECT_STORE_FAILED, f"The object store answered {error.code}.", bucket=bucket
        ) from None
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(
            Reason.OBJECT_STORE_UNAVAILABLE, f"The object store does not answer ({type(error).__name__})."
        ) from None
    except ValueError:
        # The minio client rejects keys with `..` and with unpaired surrogates.
        raise NotFound(Reason.UNKNOWN_OBJECT, "The key is not a valid object name.", bucket=bucket) from None


class S3Store(ObjectStore):
    """Any object store with an S3 API. Thread-safe.

    Names of buckets, also those in references, are without `prefix`, which precedes them in the store only. Files of bases come through
    `cache`, if there is one.
    """

    def __init__(self, client: Minio, prefix: str = "", cache: FileCache | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._cache = cache

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> "S3Store":
        """A store with the service's own credentials. It connects at the first call."""
        folder, max_bytes = settings.base_cache_dir, settings.base_cache_gib * 2**30
        cache = FileCache(folder, max_bytes) if folder is not None else None
        return cls(open_client(settings), settings.s3_bucket_prefix, cache)

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        with _wrap_errors(bucket, key):
            self._client.put_object(self._prefix + bucket, key, io.BytesIO(data), len(data), content_type)
        return Ref(f"s3://{bucket}/{key}", hashlib.sha256(data).hexdigest(), len(data))

    def put_file(self, bucket: str, key: str, path: Path, content_type: str = "application/octet-stream") -> Ref:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with _wrap_errors(bucket, key):
            self._client.fput_object(self._prefix + bucket, key, str(path), content_type)
        return Ref(f"s3://{bucket}/{key}", digest, path.stat().st_size)

    def get(self, ref: Ref) -> bytes:
        data = self.read(ref.bucket, ref.key)
        if len(data) != ref.size_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise corrupt_object(ref.uri)
        return data

    def get_file(self, ref: Ref, path: Path) -> None:
        if self._cache is not None and f"{ref.bucket}/{ref.key}".startswith(BASE_FILES):
            self._cache.fetch(ref, path, self._download)
        else:
            self._download(ref, path)

    def _download(self, ref: Ref, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        hasher = hashlib.sha256()
        with _wrap_errors(ref.bucket, ref.key):
            response = self._client.get_object(self._prefix + ref.bucket, ref.key)
            try:
                with partial.open("wb") as file:
                    for chunk in response.stream(CHUNK_BYTES):
                        hasher.update(chunk)
                        file.write(chunk)
                        if file.tell() > ref.size_bytes:
                            break
            finally:
                response.close()
                response.release_conn()
        if hasher.hexdigest() != ref.sha256 or partial.stat().st_size != ref.size_bytes:
            partial.unlink()
            raise corrupt_object(ref.uri)
        partial.replace(path)

    def read(self, bucket: str, key: str) -> bytes:
        with _wrap_errors(bucket, key):
            response = self._client.get_object(self._prefix + bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

    def read_bounded(self, bucket: str, key: str, max_bytes: int) -> tuple[bytes, str]:
        data = bytearray()
        with _wrap_errors(bucket, key):
            response = self._client.get_object(self._prefix + bucket, key)
            try:
                for chunk in response.stream(CHUNK_BYTES):
                    data += chunk
                    if len(data) > max_bytes:
                        raise FailedPrecondition(
                            Reason.OBJECT_TOO_LARGE, "The object is larger than allowed.", bucket=bucket
                        )
            finally:
                response.close()
                response.release_conn()
        return bytes(data), response.headers.get("content-type") or ""

    def measure(self, bucket: str, key: str) -> Ref:
        hasher, size = hashlib.sha256(), 0
        with _wrap_errors(bucket, key):
            response = self._client.get_object(self._prefix + bucket, key)
            try:
                for chunk in response.stream(CHUNK_BYTES):
                    hasher.update(chunk)
                    size += len(chunk)
            finally:
                response.close()
                response.release_conn()
        return Ref(f"s3://{bucket}/{key}", hasher.hexdigest(), size)

    def exists(self, bucket: str, key: str) -> bool:
        try:
            with _wrap_errors(bucket, key):
                self._client.stat_object(self._prefix + bucket, key)
        except NotFound:
            return False
        return True

    def delete(self, bucket: str, key: str) -> None:
        with _wrap_errors(bucket, key):
            self._client.remove_object(self._prefix + bucket, key)

    def list_keys(self, bucket: str, prefix: str) -> list[str]:
        if "//" in prefix:
            # No key has an empty part, and MinIO refuses such a prefix.
            return []
        with _wrap_errors(bucket, prefix):
            items = self._client.list_objects(self._prefix + bucket, prefix, recursive=True)
            # What is listed may be deleted, and SeaweedFS reads some prefixes as the folder that they are in.
            return sorted(item.object_name for item in items if item.object_name.startswith(prefix))


def open_client(settings: ServiceSettings) -> Minio:
    """A client with the settings' key; without one, with a role by web identity if there is a token, or else anonymous.

    Does not connect yet.
    """
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=3, read=60), maxsize=16, retries=urllib3.Retry(total=2, backoff_factor=0.2)
    )
    place = {"secure": settings.s3_secure, "region": settings.s3_region, "http_client": pool}
    # Without a region the client asks for it, which write-only credentials may not.
    if not settings.s3_access_key and settings.s3_token_file is not None:
        role = WebIdentity(settings.s3_token_file, settings.s3_role, settings.token_service)
        return Minio(settings.s3_endpoint, credentials=role, **place)
    secret_key = settings.s3_secret_key.get_secret_value()
    return Minio(settings.s3_endpoint, access_key=settings.s3_access_key, secret_key=secret_key, **place)
