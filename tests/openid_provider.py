"""An OpenID provider for tests, built with authlib's server, as a process: `python -m tests.openid_provider PORT`.

It has one client with a secret, one without, and one user, whom `POST /user` changes, and who consents to everything. The user's fields end up in the id token, so that
tests can have it say anything; `sign_with` names a forgery (`none`, `hs256`, `strange`).
"""

import base64
import hmac
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import uvicorn
from authlib.common.security import generate_token
from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from fastapi import FastAPI, Request, Response
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET, PUBLIC_CLIENT_ID = "tailor-console", "console's secret", "tailor-public"
USER: dict[str, Any] = {"sub": "sub-1", "email": "ada@example.com", "email_verified": True}


@dataclass
class Code:
    """An authorization code with what it was asked for."""

    code: str
    request: dict[str, str]

    @property
    def code_challenge(self) -> str:
        return self.request.get("code_challenge", "")

    @property
    def code_challenge_method(self) -> str:
        return self.request.get("code_challenge_method", "")

    def get_redirect_uri(self) -> str:
        return self.request.get("redirect_uri", "")

    def get_scope(self) -> str:
        return self.request["scope"]

    def get_nonce(self) -> str:
        return self.request.get("nonce", "")

    def get_auth_time(self) -> None:
        return None

    get_acr = get_amr = get_auth_time


class Client(ClientMixin):  # type: ignore[misc]  # authlib has no types
    """The console: a client with a secret, or one without."""

    def __init__(self, redirect_uri: str, client_id: str) -> None:
        self._redirect_uri = redirect_uri
        self._client_id = client_id

    def get_client_id(self) -> str:
        return self._client_id

    def get_default_redirect_uri(self) -> str:
        return self._redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self._redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == ("client_secret_basic" if self._client_id == CLIENT_ID else "none")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


class Provider:
    """Codes and keys."""

    def __init__(self, issuer: str, redirect_uri: str) -> None:
        self.issuer = issuer
        self.clients = {name: Client(redirect_uri, name) for name in (CLIENT_ID, PUBLIC_CLIENT_ID)}
        self.codes: dict[str, Code] = {}
        self.user = dict(USER)
        self.key = self.new_key()

    def new_key(self) -> RSAKey:
        return RSAKey.generate_key(2048, {"kid": generate_token(8), "use": "sig", "alg": "RS256"})


def make_server(provider: Provider) -> AuthorizationServer:
    """authlib's server over the provider's codes and keys."""

    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "none"]  # noqa: RUF012 - authlib's way

        def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
            provider.codes[code] = Code(code, dict(request.payload.data))

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            del provider.codes[authorization_code.code]

        def authenticate_user(self, authorization_code: Code) -> dict[str, Any]:
            return provider.user

    class IdToken(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:
            return any(code.get_nonce() == nonce for code in provider.codes.values())

        def get_client_claims(self, client: Client) -> dict[str, Any]:
            return {"iss": provider.issuer, "aud": [client.get_client_id()]}

        def get_encode_header(self, client: Client) -> dict[str, str]:
            return {"alg": "RS256", "kid": provider.key.kid or ""}

        def resolve_client_private_key(self, client: Client) -> RSAKey:
            return provider.key

        def generate_user_info(self, user: dict[str, Any], scope: str) -> dict[str, Any]:
            return {name: value for name, value in user.items() if name != "sign_with"}

        def encode_id_token(self, token: dict[str, Any], request: OAuth2Request) -> str:
            genuine: str = super().encode_id_token(token, request)
            return forge(provider, genuine, provider.user.get("sign_with", ""))

    class Server(AuthorizationServer):  # type: ignore[misc]
        def query_client(self, client_id: str) -> Client | None:
            return provider.clients.get(client_id)

        def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
            return None

        def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
            return None

        def create_oauth2_request(self, request: OAuth2Request) -> OAuth2Request:
            return request

        def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, Any, dict[str, str]]:
            return status, body, dict(headers)

    server = Server()
    server.register_token_generator("default", BearerTokenGenerator(lambda **_: generate_token(42)))
    server.register_grant(Grant, [IdToken(), CodeChallenge(required=True)])
    return server


def forge(provider: Provider, genuine: str, sign_with: str) -> str:
    """The claims of a token under another signature; the token itself without a forgery."""
    if sign_with == "none":
        return unsigned(genuine, "none") + "."
    if sign_with == "hs256":
        # With the public key, which everybody has, as the secret. joserfc refuses to sign so.
        content = unsigned(genuine, "HS256")
        digest = hmac.digest(provider.key.as_pem(private=False), content.encode(), "sha256")
        return f"{content}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    if sign_with == "strange":
        header = {"alg": "RS256", "kid": provider.key.kid or ""}
        return jwt.encode(header, jwt.decode(genuine, provider.key).claims, provider.new_key())
    return genuine


def unsigned(token: str, algorithm: str) -> str:
    """A token's claims under another header, without a signature."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm}).encode()).rstrip(b"=").decode()
    return f"{header}.{token.split('.')[1]}"


class Asked(OAuth2Request):  # type: ignore[misc]
    """A request of FastAPI's as authlib's server reads it."""

    def __init__(self, request: Request, form: dict[str, str]) -> None:
        super().__init__(request.method, str(request.url), headers=Headers(request))
        self._form, self._args = form, dict(request.query_params)
        self.payload = BasicOAuth2Payload(form or self._args)

    @property
    def args(self) -> dict[str, str]:
        return self._args

    @property
    def form(self) -> dict[str, str]:
        return self._form


def create_app(provider: Provider) -> FastAPI:
    app, server = FastAPI(), make_server(provider)

    async def read(request: Request) -> OAuth2Request:
        form = {key: str(value) for key, value in (await request.form()).items()}
        return Asked(request, form)

    @app.get("/.well-known/openid-configuration")
    def discover() -> dict[str, Any]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return {"issuer": provider.issuer} | {name: f"{provider.issuer}/{path}" for name, path in names.items()}

    @app.get("/keys")
    def keys() -> dict[str, Any]:
        return {"keys": [provider.key.as_dict(private=False)]}

    @app.get("/authorize")
    async def authorize(request: Request) -> Response:
        asked = await read(request)
        grant = server.get_consent_grant(asked, end_user=provider.user)
        return answer(server.create_authorization_response(asked, grant_user=provider.user, grant=grant))

    @app.post("/token")
    async def token(request: Request) -> Response:
        return answer(server.create_token_response(await read(request)))

    @app.post("/user")
    async def change_user(request: Request) -> None:
        provider.user = USER | await request.json()

    @app.post("/rotate")
    def rotate() -> None:
        provider.key = provider.new_key()

    return app


def answer(parts: tuple[int, Any, dict[str, str]]) -> Response:
    status, body, headers = parts
    content = json.dumps(body) if isinstance(body, dict) else body
    return Response(content, status, headers)


class Headers(dict[str, str]):
    """Headers under the spelling that authlib asks for."""

    def __init__(self, request: Request) -> None:
        super().__init__({name.title(): value for name, value in request.headers.items()})


if __name__ == "__main__":
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
    port, redirect_uri = int(sys.argv[1]), sys.argv[2]
    provider = Provider(f"http://127.0.0.1:{port}", redirect_uri)
    uvicorn.run(create_app(provider), host="127.0.0.1", port=port, log_level="warning")
