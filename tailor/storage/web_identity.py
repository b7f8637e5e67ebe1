"""Keys of an object store for a limited time, in exchange for a token of the cluster (AWS STS, AssumeRoleWithWebIdentity)."""

import threading
from pathlib import Path
from typing import Any

import urllib3
from minio.credentials import Credentials, Provider, WebIdentityProvider

from tailor.errors import Reason, Unavailable

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
