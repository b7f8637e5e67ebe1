"""Keys of the object store for a token of the cluster, from a token service that answers as Amazon's does."""

import importlib
import threading
import urllib.parse
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import urllib3
from minio import Minio
from pydantic import ValidationError

from deploy.make_secrets import make
from tailor.errors import NotFound, Reason, Unavailable
from tailor.local.layout import SERVICES
from tailor.settings import ServiceSettings
from tailor.storage.buckets import ACCESS
from tailor.storage.s3 import S3Store

ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>session-{key}</SessionToken><Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


class Cloud(BaseHTTPRequestHandler):
    """A token service, and an object store that has every object."""

    lives = timedelta(hours=1)
    status = 200
    body = ANSWER
    asked: list[tuple[str, dict[str, str]]]
    signed: list[tuple[str, str]]
    read: list[str]

    def do_POST(self) -> None:
        form = urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.asked.append((self.path, dict(form)))
        expiration = (datetime.now(UTC) + self.lives).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self._answer(self.status, self.body.format(key=f"KEY{len(self.asked)}", expiration=expiration))

    def do_GET(self) -> None:
        self.read.append(self.path)
        self.signed.append((self.headers["Authorization"] or "", self.headers["X-Amz-Security-Token"] or ""))
        self._answer(200, "object")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def cloud() -> Iterator[str]:
    Cloud.asked, Cloud.signed, Cloud.read = [], [], []
    Cloud.lives, Cloud.status, Cloud.body = timedelta(hours=1), 200, ANSWER
    server = ThreadingHTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def environment(cloud: str, folder: Path) -> dict[str, str]:
    """The variables as Amazon's webhook and the settings have them."""
    (folder / "token").write_text("first-token\n", encoding="ascii")
    return {
        "TAILOR_S3_ENDPOINT": cloud,
        "TAILOR_S3_STS_ENDPOINT": f"http://{cloud}/",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/tailor",
    }


@pytest.fixture
def store(cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    for name, value in environment(cloud, tmp_path).items():
        monkeypatch.setenv(name, value)
    return S3Store.from_settings(ServiceSettings())


@pytest.mark.parametrize("service", [*(name for name in SERVICES if ACCESS[name]), "training-worker"])
def test_every_services_store_signs_with_the_keys_of_its_role(
    service: str, cloud: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "WorkerSettings" if service == "training-worker" else "Settings"
    module = importlib.import_module(f"services.{service.removesuffix('-worker')}.settings")
    secrets = (make(tmp_path) / f"{service.removesuffix('-worker')}.env").read_text(encoding="utf-8").splitlines()
    lines = [line.partition("=") for line in secrets if not line.startswith("TAILOR_S3_")]
    for variable, value in {**{line[0]: line[2] for line in lines}, **environment(cloud, tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    settings = getattr(module, name)()
    assert isinstance(settings, ServiceSettings)
    assert S3Store.from_settings(settings).read("models", "any") == b"object"
    (address, form) = Cloud.asked[0]
    # A token in a URL would occur in the logs of proxies.
    assert address == "/"
    assert form["WebIdentityToken"] == "first-token" and form["RoleArn"] == "arn:aws:iam::1:role/tailor"
    assert form["Action"] == "AssumeRoleWithWebIdentity" and form["RoleSessionName"] == "tailor"
    assert "Credential=KEY1/" in Cloud.signed[0][0] and Cloud.signed[0][1] == "session-KEY1"


def test_keys_are_kept_until_they_end_and_the_token_is_read_again(store: S3Store, tmp_path: Path) -> None:
    store.read("models", "a")
    store.read("models", "b")
    assert len(Cloud.asked) == 1
    Cloud.lives = timedelta(seconds=1)
    again = S3Store.from_settings(ServiceSettings())
    again.read("models", "a")
    (tmp_path / "token").write_text("second-token", encoding="ascii")
    again.read("models", "b")
    assert [form["WebIdentityToken"] for _, form in Cloud.asked] == ["first-token", "first-token", "second-token"]


def test_a_key_of_its_own_comes_before_a_role(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_S3_ACCESS_KEY", "own")
    monkeypatch.setenv("TAILOR_S3_SECRET_KEY", "secret")
    S3Store.from_settings(ServiceSettings()).read("models", "any")
    assert Cloud.asked == [] and "Credential=own/" in Cloud.signed[0][0]


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (403, "<Error>first-token</Error>", Reason.OBJECT_STORE_LOGIN_REFUSED, "answered 403"),
        (302, "", Reason.OBJECT_STORE_LOGIN_REFUSED, "answered 302"),
        (503, "", Reason.OBJECT_STORE_UNAVAILABLE, "answered 503"),
        (200, "no xml", Reason.OBJECT_STORE_LOGIN_REFUSED, "without keys"),
        (200, "<a></a>", Reason.OBJECT_STORE_LOGIN_REFUSED, "without keys"),
    ],
)
def test_what_the_token_service_refuses_is_said_without_the_token(
    store: S3Store, status: int, body: str, reason: Reason, words: str
) -> None:
    Cloud.status, Cloud.body = status, body
    with pytest.raises(Unavailable, match=words) as failure:
        store.read("models", "any")
    assert failure.value.reason == reason and "first-token" not in failure.value.message


def test_a_missing_token_and_an_absent_service_are_said(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        store.read("models", "any")
    (tmp_path / "token").write_text("first-token", encoding="ascii")
    monkeypatch.setenv("TAILOR_S3_STS_ENDPOINT", "http://127.0.0.1:1/")
    with pytest.raises(Unavailable, match="does not answer") as failure:
        S3Store.from_settings(ServiceSettings()).read("models", "any")
    assert "first-token" not in failure.value.message


def test_a_prefix_precedes_the_bucket_in_the_store_only(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_S3_BUCKET_PREFIX", "acme-")
    S3Store.from_settings(ServiceSettings()).read("models", "bases/a")
    assert Cloud.read == ["/acme-models/bases/a"]


@pytest.mark.parametrize("prefix", ["Acme-", "-acme", "acme/", "a" * 51])
def test_a_prefix_that_no_bucket_may_have_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError):
        ServiceSettings(s3_bucket_prefix=prefix)


def test_amazons_token_service_is_that_of_the_region() -> None:
    assert ServiceSettings(s3_region="eu-west-1").token_service == "https://sts.eu-west-1.amazonaws.com"
    assert ServiceSettings(s3_region="cn-north-1").token_service == "https://sts.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize("key", ["../secrets/manifest.json", "bases/./manifest.json", "", "\ud800/manifest.json"])
def test_an_invalid_object_name_is_not_found(key: str) -> None:
    nowhere = urllib3.PoolManager(retries=False, timeout=0.2)
    store = S3Store(Minio("127.0.0.1:1", "key", "secret", secure=False, region="here", http_client=nowhere))
    with pytest.raises(NotFound):
        store.read("datasets", key)
