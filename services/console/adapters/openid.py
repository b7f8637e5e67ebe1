"""The company's OpenID provider: discovery, the authorization code flow with PKCE, and the verification of id tokens.

OpenID Connect Core 1.0, section 3.1; OpenID Connect Discovery 1.0.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.console.domain import ProviderIdentity, SignInAttempt
from services.console.settings import Settings
from tailor.errors import Reason, Unauthenticated, Unavailable

SECONDS = 5
CACHE_SECONDS = 3600.0
# Requests to the provider at the same time: more would take the console's threads from its pages while the provider does not answer.
MAX_QUESTIONS = 8
# Clocks may differ by this much.
LEEWAY_SECONDS = 10
# Signatures with the provider's private key only: with HS256, its public key or the client's secret could sign.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
CALLBACK = "/openid/callback"
# Over TLS, or on this machine.
SAFE_ADDRESS = re.compile(r"https://|http://(127\.0\.0\.1|localhost)(:\d{1,5})?(/|$)")


class OpenIdClient:
    """The provider. Its metadata and keys are asked for when first needed, and remembered for an hour. Thread-safe.

    Both calls may raise Unavailable (PROVIDER_UNAVAILABLE).
    """

    def __init__(self, issuer: str, client_id: str, client_secret: str, public_url: str) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = public_url.rstrip("/") + CALLBACK
        self._lock = threading.Lock()
        self._questions = threading.BoundedSemaphore(MAX_QUESTIONS)
        # By address: when to ask again, and the answer.
        self._known: dict[str, tuple[float, dict[str, Any]]] = {}

    def authorize(self, attempt: SignInAttempt) -> str:
        """The provider's address at which a browser's user signs in."""
        with self._session() as session:
            url, _ = session.create_authorization_url(
                self._metadata()["authorization_endpoint"],
                state=attempt.state,
                nonce=attempt.nonce,
                code_verifier=attempt.verifier,
            )
        return str(url)

    def identify(self, attempt: SignInAttempt, code: str) -> ProviderIdentity:
        """Redeem the code with which the user came back.

        Raises Unauthenticated (INVALID_SIGN_IN) for a code or a token that is not valid for this attempt.
        """
        endpoint = self._metadata()["token_endpoint"]
        try:
            with self._session() as session, self._reach():
                token = session.fetch_token(
                    endpoint, code=code, code_verifier=attempt.verifier, timeout=SECONDS, allow_redirects=False
                )
        except (OAuthError, ValueError):
            raise _invalid("The provider did not accept the code") from None
        return self._to_identity(self._verify(dict(token), attempt.nonce))

    def _session(self) -> OAuth2Session:
        return OAuth2Session(
            self._client_id,
            self._client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if self._client_secret else "none",
            scope="openid email",
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
        )

    def _metadata(self) -> dict[str, Any]:
        metadata = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        addresses = [metadata.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if metadata.get("issuer") != self._issuer or not all(_is_safe(address) for address in addresses):
            raise Unavailable(
                Reason.PROVIDER_UNAVAILABLE,
                "The discovery document of the OpenID provider names another issuer, or an address without TLS. "
                "Check TAILOR_OIDC_ISSUER.",
            )
        return metadata

    def _fetch(self, address: str, *, again: bool = False) -> dict[str, Any]:
        with self._lock:
            ask_at, known = self._known.get(address, (0.0, {}))
        if time.monotonic() < ask_at and not again:
            return known
        with self._reach():
            answer = requests.get(address, timeout=SECONDS, allow_redirects=False)
            answer.raise_for_status()
            document = answer.json()
        if not isinstance(document, dict):
            raise _unavailable()
        with self._lock:
            self._known[address] = (time.monotonic() + CACHE_SECONDS, document)
        return document

    @contextmanager
    def _reach(self) -> Iterator[None]:
        """A request to the provider. Raises Unavailable if it does not answer, or with an error, or if MAX_QUESTIONS others wait for it."""
        if not self._questions.acquire(blocking=False):
            raise _unavailable()
        try:
            yield
        except requests.RequestException:
            raise _unavailable() from None
        finally:
            self._questions.release()

    def _verify(self, token: dict[str, Any], nonce: str) -> CodeIDToken:
        """The claims of a token response's id token, verified. Raises Unauthenticated."""
        try:
            decoded = self._decode(str(token.get("id_token", "")))
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={
                    "iss": {"essential": True, "value": self._issuer},
                    "aud": {"essential": True, "value": self._client_id},
                },
                params={"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError):
            raise _invalid("The provider's id token is not valid for this sign-in") from None
        return claims

    def _decode(self, id_token: str) -> jwt.Token:
        """Verify the signature. The provider may have changed its keys since they were last asked for."""
        address = self._metadata()["jwks_uri"]
        try:
            return jwt.decode(id_token, KeySet.import_key_set(self._fetch(address)), algorithms=ALGORITHMS)  # type: ignore[arg-type]  # the file's keys
        except (JoseError, ValueError):
            keys = KeySet.import_key_set(self._fetch(address, again=True))  # type: ignore[arg-type]
            return jwt.decode(id_token, keys, algorithms=ALGORITHMS)

    def _to_identity(self, claims: CodeIDToken) -> ProviderIdentity:
        subject, mail = claims.get("sub"), claims.get("email")
        if not isinstance(subject, str) or not subject:
            raise _invalid("The provider's id token names nobody")
        verified = claims.get("email_verified") is True and isinstance(mail, str)
        return ProviderIdentity(self._issuer, subject, str(mail) if verified else "")


def _is_safe(address: object) -> bool:
    return isinstance(address, str) and SAFE_ADDRESS.match(address) is not None


def _unavailable() -> Unavailable:
    return Unavailable(
        Reason.PROVIDER_UNAVAILABLE,
        "The OpenID provider does not answer. Try again, or sign in with a secret or a key.",
    )


def _invalid(problem: str) -> Unauthenticated:
    return Unauthenticated(Reason.INVALID_SIGN_IN, f"{problem}. Start again from the sign-in page.")


def find_provider(settings: Settings) -> OpenIdClient | None:
    """The provider of the settings; None without one. Raises OSError if the file of the client's secret cannot be read."""
    if not settings.oidc_issuer:
        return None
    file: Path | None = settings.oidc_client_secret_file
    secret = file.read_text(encoding="utf-8").strip() if file else ""
    return OpenIdClient(settings.oidc_issuer, settings.oidc_client_id, secret, settings.public_url)
