"""Tokens for Kafka's OAUTHBEARER, and the other ways to sign in."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tailor.kafka_oauth import GrantedToken, token_provider
from tailor.settings import KafkaSettings


class Endpoint(BaseHTTPRequestHandler):
    """Grants numbered tokens, or answers without one."""

    forms: list[str]
    answer: dict[str, Any]

    def do_POST(self) -> None:
        self.forms.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        document = {name: f"{value}-{len(self.forms)}" for name, value in self.answer.items()} | {"expires_in": 0}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    Endpoint.forms, Endpoint.answer = [], {"access_token": "token"}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def test_a_token_is_granted_for_the_clients_secret_and_renewed_when_it_ends(endpoint: str) -> None:
    token = GrantedToken(endpoint, "training", "secret", "kafka")
    assert (token(), token()) == ("token-1", "token-2")
    assert Endpoint.forms[0] == "grant_type=client_credentials&client_id=training&client_secret=secret&scope=kafka"


def test_an_answer_without_a_token_is_an_error(endpoint: str) -> None:
    Endpoint.answer = {}
    with pytest.raises(ValueError, match="access_token"):
        GrantedToken(endpoint, "training", "secret", "")()


def test_the_token_of_a_file_is_read_again_because_its_owner_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "token"
    settings = KafkaSettings(
        kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism="OAUTHBEARER", kafka_oauth_token_file=file
    )
    provider: Any = settings.kafka_arguments()["sasl_oauth_token_provider"]
    for text in ("first", "second"):
        file.write_text(f"{text}\n", encoding="ascii")
        assert provider.token() == text


def test_oauth_without_a_source_of_tokens_names_the_settings() -> None:
    with pytest.raises(ValueError, match="TAILOR_KAFKA_OAUTH_TOKEN_URL"):
        token_provider(None, "", "", "", "")


@pytest.mark.parametrize(
    "url", ["http://login.example/token", "http://127.0.0.1:x@login.example/token", "http://127.0.0.1:80.login.example"]
)
def test_a_clients_secret_goes_only_over_tls(url: str) -> None:
    with pytest.raises(ValidationError):
        KafkaSettings(kafka_oauth_token_url=url)


@pytest.mark.parametrize(
    "url", ["https://login.example/token", "http://127.0.0.1:8080/token", "http://127.0.0.1/token"]
)
def test_a_clients_secret_goes_to_its_endpoint(url: str) -> None:
    KafkaSettings(kafka_oauth_token_url=url)


def test_a_client_certificate_is_named_by_its_files() -> None:
    settings = KafkaSettings(
        kafka_security_protocol="SSL",
        kafka_ca_file=Path("ca.pem"),
        kafka_certificate_file=Path("client.crt"),
        kafka_key_file=Path("client.key"),
        kafka_sasl_password=SecretStr("unused"),
    )
    arguments = settings.kafka_arguments()
    assert arguments["ssl_certfile"] == "client.crt"
    assert arguments["ssl_keyfile"] == "client.key"
    assert "sasl_mechanism" not in arguments
