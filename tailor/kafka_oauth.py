"""Tokens for Kafka's OAUTHBEARER: read from a file, or granted by an endpoint (OAuth 2.0 client credentials, RFC 6749 section 4.4)."""

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 100_000
# A granted token is renewed when this share of its life has passed.
RENEW_AFTER = 0.8


def token_provider(file: Path | None, url: str, client_id: str, client_secret: str, scope: str) -> Any:
    """A `kafka.net.sasl.oauth.AbstractTokenProvider`. Raises ValueError if neither a file nor an endpoint is set."""
    from kafka.net.sasl.oauth import AbstractTokenProvider

    if file is not None:
        token: Callable[[], str] = FileToken(file)
    elif url:
        token = GrantedToken(url, client_id, client_secret, scope)
    else:
        raise ValueError("OAUTHBEARER needs TAILOR_KAFKA_OAUTH_TOKEN_FILE or TAILOR_KAFKA_OAUTH_TOKEN_URL.")

    class Provider(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> str:
            return token()

    return Provider()


class FileToken:
    """The token of a file, read at each connection, because its owner replaces it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> str:
        return self._path.read_text(encoding="ascii").strip()


class GrantedToken:
    """A token that the endpoint granted, kept until it has to be renewed. Thread-safe; blocks while it asks."""

    def __init__(self, url: str, client_id: str, client_secret: str, scope: str) -> None:
        self._url = url
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        if scope:
            self._form["scope"] = scope
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def __call__(self) -> str:
        """Raises OSError if the endpoint does not answer, ValueError if its answer has no token."""
        with self._lock:
            if time.monotonic() >= self._renew_at:
                self._ask()
            return self._token

    def _ask(self) -> None:
        data = urllib.parse.urlencode(self._form).encode()
        with urllib.request.urlopen(self._url, data, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - settings allow https only  # nosec B310
            document = json.loads(answer.read(MAX_ANSWER_BYTES))
        token = document.get("access_token")
        if not isinstance(token, str) or not token:
            raise ValueError("The token endpoint's answer has no access_token.")
        self._token = token
        self._renew_at = time.monotonic() + RENEW_AFTER * float(document.get("expires_in", 60))
