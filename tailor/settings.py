"""Settings that all services share. Each service adds its own in a subclass."""

import tempfile
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from tailor.kafka_oauth import token_provider

# Where a secret is exchanged for a token: over TLS, or on this machine.
EXCHANGE_URL = r"^($|https://|http://127\.0\.0\.1(:\d{1,5})?(/|$))"
# The longest bucket is `quarantine`, and a bucket's name has at most 63 characters.
BUCKET_PREFIX = r"^($|[a-z0-9][a-z0-9-]{0,49}$)"


class KafkaSettings(BaseSettings):
    """Address of the broker and credentials for it.

    Three ways to authenticate: a user and password (`SASL_*` with PLAIN or SCRAM), a client certificate (`SSL`), or OAuth (`SASL_*` with
    OAUTHBEARER, and either a file with the token or an endpoint that grants one for a client's secret).
    """

    # An error at start is printed, and must not show the keys and passwords that it is about.
    model_config = SettingsConfigDict(env_prefix="TAILOR_", extra="ignore", hide_input_in_errors=True)

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")
    kafka_sasl_mechanism: str = Field("SCRAM-SHA-512", pattern="^(PLAIN|SCRAM-SHA-256|SCRAM-SHA-512|OAUTHBEARER)$")
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    # The client's certificate and key, for a broker that authenticates clients by TLS.
    kafka_certificate_file: Path | None = None
    kafka_key_file: Path | None = None
    # OAUTHBEARER: a file that something else keeps fresh, or an endpoint of the client credentials grant.
    kafka_oauth_token_file: Path | None = None
    kafka_oauth_token_url: str = Field("", pattern=EXCHANGE_URL)
    kafka_oauth_client_id: str = ""
    kafka_oauth_client_secret: SecretStr = SecretStr("")
    kafka_oauth_scope: str = ""
    # Precede every topic and every consumer group, so that several installations can share a cluster.
    kafka_topic_prefix: str = Field("", pattern=r"^[a-zA-Z0-9._-]{0,60}$")
    kafka_group_prefix: str = Field("", pattern=r"^[a-zA-Z0-9._-]{0,60}$")
    # A stable name of this replica, so that it rejoins its group at once after it was killed. Empty for a dynamic member.
    kafka_group_instance_id: str = ""
    # Module whose KafkaProducer and KafkaConsumer are used; a replacement can make up for a broker's defects.
    kafka_client_module: str = "kafka"

    @property
    def kafka_user(self) -> str:
        """The user that the broker knows this client by; empty without SASL."""
        return self.kafka_sasl_username or "" if self.kafka_security_protocol.startswith("SASL") else ""

    def kafka_arguments(self) -> dict[str, object]:
        """The connection arguments of every kafka-python client."""
        return {
            "bootstrap_servers": self.kafka_bootstrap_servers.split(","),
            "security_protocol": self.kafka_security_protocol,
            **(self._sasl_arguments() if self.kafka_security_protocol.startswith("SASL") else {}),
            **self._tls_arguments(),
            # kafka-python's defaults wait up to 30 s before they try a broker that has returned.
            "reconnect_backoff_ms": 100,
            "reconnect_backoff_max_ms": 1_000,
            "request_timeout_ms": 15_000,
            "bootstrap_timeout_ms": 5_000,
        }

    def _sasl_arguments(self) -> dict[str, object]:
        if self.kafka_sasl_mechanism == "OAUTHBEARER":
            provider = token_provider(
                self.kafka_oauth_token_file,
                self.kafka_oauth_token_url,
                self.kafka_oauth_client_id,
                self.kafka_oauth_client_secret.get_secret_value(),
                self.kafka_oauth_scope,
            )
            return {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": provider}
        if self.kafka_sasl_password is None:
            return {}
        return {
            "sasl_mechanism": self.kafka_sasl_mechanism,
            "sasl_plain_username": self.kafka_sasl_username,
            "sasl_plain_password": self.kafka_sasl_password.get_secret_value(),
        }

    def _tls_arguments(self) -> dict[str, object]:
        files = {
            "ssl_cafile": self.kafka_ca_file,
            "ssl_certfile": self.kafka_certificate_file,
            "ssl_keyfile": self.kafka_key_file,
        }
        return {name: str(path) for name, path in files.items() if path is not None}


class ServiceSettings(KafkaSettings):
    """Addresses and credentials of a service. Each field is read from the environment variable `TAILOR_<FIELD>`."""

    model_config = SettingsConfigDict(populate_by_name=True)

    s3_endpoint: str = "127.0.0.1:9000"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    # Precedes the names of all buckets, because those of a public object store are shared by everybody.
    s3_bucket_prefix: str = Field("", pattern=BUCKET_PREFIX)

    # Without an access key: a token of the cluster, exchanged for keys of a role. Amazon's webhook sets both by their second names.
    s3_token_file: Path | None = Field(
        None, validation_alias=AliasChoices("TAILOR_S3_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    )
    s3_role: str = Field("", validation_alias=AliasChoices("TAILOR_S3_ROLE", "AWS_ROLE_ARN"))
    # The token service; empty for Amazon's of the region. A MinIO is its own.
    s3_sts_endpoint: str = Field("", pattern=EXCHANGE_URL)

    # A folder that pods share, for files of bases, and its limit. Nothing in it is trusted.
    base_cache_dir: Path | None = None
    base_cache_gib: int = Field(100, ge=1, le=100_000)

    database_url: SecretStr = SecretStr("")

    rpc_host: str = "127.0.0.1"
    rpc_port: int = 50051
    rpc_max_message_bytes: int = 16 * 1024 * 1024
    # Lets tools such as grpcurl ask for the contract, without credentials. It shows methods and messages, which are public, and no data.
    rpc_reflection: bool = False
    # What running calls have to end once the process is asked to: as long as the longest answer, and less than the process manager waits.
    stop_grace_seconds: float = Field(8.0, ge=0, le=3600)
    # A call whose next message takes longer is cancelled. A message of the largest size needs a line of 7 Mbit/s.
    rpc_message_seconds: float = Field(20.0, gt=0, le=3600)
    # Calls that one key or service may have open at once; 0 means three quarters of what this server takes.
    rpc_max_calls_per_caller: int = Field(0, ge=0)
    # Connections beyond this number are refused; one without calls is closed, and an old one is replaced while its calls go on.
    rpc_max_connections: int = Field(1000, ge=1)
    rpc_connection_idle_seconds: float = Field(300.0, ge=1, le=86_400)
    rpc_connection_age_seconds: float = Field(3600.0, ge=1, le=86_400)
    status_host: str = "127.0.0.1"
    status_port: int = 9101

    identity_key_file: Path = Path("identity.pem")
    trust_file: Path = Path("trust.json")
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    # The CA that signs the certificates of other services' servers.
    tls_ca_file: Path | None = None
    # The CA that signs callers' certificates. Without it, callers need no certificate, only a key or a service's token.
    tls_client_ca_file: Path | None = None

    ingestion_address: str = "127.0.0.1:50051"
    anonymization_address: str = "127.0.0.1:50052"
    synthetic_address: str = "127.0.0.1:50053"
    training_address: str = "127.0.0.1:50054"
    evaluation_address: str = "127.0.0.1:50055"
    registry_address: str = "127.0.0.1:50056"
    inference_address: str = "127.0.0.1:50057"

    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    data_dir: Path = Path(tempfile.gettempdir()) / "tailor"

    @property
    def token_service(self) -> str:
        """The address that exchanges tokens for keys of a role."""
        domain = "amazonaws.com.cn" if self.s3_region.startswith("cn-") else "amazonaws.com"
        return self.s3_sts_endpoint or f"https://sts.{self.s3_region}.{domain}"
