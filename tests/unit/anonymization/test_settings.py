"""Keys are 32 bytes in base64, or refused at once."""

import base64

import pytest
from pydantic import SecretStr, ValidationError

from services.anonymization.settings import Settings, decode_keys

ONE, OTHER = (base64.b64encode(letter * 32).decode() for letter in (b"a", b"b"))


def test_previous_keys_are_read_newest_first() -> None:
    settings = Settings(
        quarantine_key=SecretStr(ONE), vault_key=SecretStr(ONE), vault_previous_keys=SecretStr(f"{OTHER}, {ONE}")
    )
    assert decode_keys(settings.vault_previous_keys) == [b"b" * 32, b"a" * 32]
    assert decode_keys(SecretStr("")) == []


@pytest.mark.parametrize("keys", ["short", f"{ONE},short", base64.b64encode(b"a" * 16).decode()])
def test_a_key_that_is_none_is_refused_without_showing_it(keys: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(quarantine_key=SecretStr(ONE), vault_key=SecretStr(ONE), vault_previous_keys=SecretStr(keys))
    assert "short" not in str(refused.value) and ONE not in str(refused.value)
