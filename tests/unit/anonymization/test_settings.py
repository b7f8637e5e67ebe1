"""Keys must be 32 bytes in base64."""

import base64

import pytest
from pydantic import SecretStr, ValidationError

from services.anonymization.settings import Settings
from tailor.keys import decode_keys

KEY, OLD_KEY = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


def test_previous_keys_are_newest_first() -> None:
    settings = Settings(
        quarantine_key=SecretStr(KEY), vault_key=SecretStr(KEY), vault_previous_keys=SecretStr(f"{OLD_KEY}, {KEY}")
    )
    assert settings.vault_keys == (b"a" * 32, [b"b" * 32, b"a" * 32])
    assert decode_keys(SecretStr("")) == []


@pytest.mark.parametrize("keys", ["short", f"{KEY},short", base64.b64encode(b"a" * 16).decode()])
def test_rejects_an_invalid_key_without_showing_it(keys: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(quarantine_key=SecretStr(KEY), vault_key=SecretStr(KEY), vault_previous_keys=SecretStr(keys))
    assert "short" not in str(refused.value) and KEY not in str(refused.value)
