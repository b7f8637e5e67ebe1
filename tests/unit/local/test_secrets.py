"""The secrets of a stack."""

import base64
import hashlib
import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tailor.local.layout import Layout
from tailor.local.secrets import IDENTITIES, Secrets, ensure


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return ensure(Layout(tmp_path))


def test_only_the_owner_can_read_them(secrets: Secrets) -> None:
    assert stat.S_IMODE(secrets.directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.directory.iterdir()} == {0o600}


def test_are_created_once(secrets: Secrets) -> None:
    files = {file.name: file.read_bytes() for file in secrets.directory.iterdir()}
    assert ensure(Layout(secrets.directory.parent)) == secrets
    assert {file.name: file.read_bytes() for file in secrets.directory.iterdir()} == files


def test_commands_at_the_same_time_agree(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ensure(layout).values, range(24)))
    assert all(values == found[0] for values in found)
    assert not list(layout.secrets.glob(".operator.key.*"))


def test_creates_missing_secrets_and_keeps_the_others(secrets: Secrets) -> None:
    file = secrets.directory / "secrets.json"
    older = {name: value for name, value in secrets.values.items() if name != "vault.key"}
    file.write_text(json.dumps(older))
    newer = ensure(Layout(secrets.directory.parent)).values
    assert newer["vault.key"] != secrets.values["vault.key"]
    assert {name: newer[name] for name in older} == older


def test_every_identity_is_trusted_by_its_own_key(secrets: Secrets) -> None:
    trust = json.loads(secrets.trust_file.read_text())
    assert set(trust) == set(IDENTITIES)
    for identity, pem in trust.items():
        private = serialization.load_pem_private_key(secrets.identity_key_file(identity).read_bytes(), password=None)
        public = serialization.load_pem_public_key(pem.encode())
        assert isinstance(private, Ed25519PrivateKey)
        assert isinstance(public, Ed25519PublicKey)
        public.verify(private.sign(b"message"), b"message")


def test_no_secret_is_used_twice(secrets: Secrets) -> None:
    assert len(set(secrets.values.values())) == len(secrets.values)


def test_keys_have_the_format_that_services_expect(secrets: Secrets) -> None:
    for name in ("quarantine.key", "vault.key", "ingestion.digest.key", "inference.digest.key"):
        assert len(base64.b64decode(secrets.values[name], validate=True)) == 32
    operator_key = Layout(secrets.directory.parent).operator_key_file.read_text()
    assert re.fullmatch(r"tlr_[A-Za-z0-9_-]{43}", operator_key)
    assert secrets.operator_key_sha256 == hashlib.sha256(operator_key.encode()).hexdigest()


def test_their_repr_shows_no_secret(secrets: Secrets) -> None:
    assert not any(value in repr(secrets) for value in secrets.values.values())
