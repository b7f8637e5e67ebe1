"""Decoding secret keys."""

import base64

import pytest
from pydantic import SecretStr

from tailor.keys import KEY_BYTES, decode_key, decode_keys

KEY = bytes(range(KEY_BYTES))


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_decodes_a_key_of_32_bytes() -> None:
    assert decode_key(SecretStr(encoded(KEY))) == KEY


@pytest.mark.parametrize("text", ["", "not base64!", encoded(KEY[:-1]), encoded(KEY + b"x"), encoded(KEY)[:-1]])
def test_refuses_any_other_text_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="the key must be") as refused:
        decode_key(SecretStr(text))
    assert not text or text not in str(refused.value)


def test_decodes_a_list_and_ignores_empty_entries() -> None:
    other = KEY[::-1]
    assert decode_keys(SecretStr(f"{encoded(KEY)}, {encoded(other)},")) == [KEY, other]
    assert decode_keys(SecretStr("")) == []
