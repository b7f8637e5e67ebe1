"""Secret keys as settings hold them."""

import base64
import binascii

from pydantic import SecretStr

KEY_BYTES = 32


def decode_key(value: SecretStr) -> bytes:
    """The bytes of a base64 key. Raises ValueError unless it has exactly 32 bytes; the error never holds the key."""
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("the key must be base64") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"the key must be exactly {KEY_BYTES} bytes")
    return key


def decode_keys(value: SecretStr) -> list[bytes]:
    """The keys of a comma-separated list. Raises ValueError like `decode_key`."""
    return [decode_key(SecretStr(part.strip())) for part in value.get_secret_value().split(",") if part.strip()]
