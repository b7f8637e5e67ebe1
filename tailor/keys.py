"""Decode secret keys from settings."""

import base64
import binascii

from pydantic import SecretStr

KEY_BYTES = 32


def decode_key(value: SecretStr) -> bytes:
    """Decode a base64 key. Raises ValueError unless it has exactly 32 bytes; the message never contains the key."""
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("the key must be base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key must be exactly {KEY_BYTES} bytes")
    return key


def decode_keys(value: SecretStr) -> list[bytes]:
    """Decode a comma-separated list of keys; empty entries are ignored. Raises ValueError like `decode_key`."""
    return [decode_key(SecretStr(part.strip())) for part in value.get_secret_value().split(",") if part.strip()]
