"""The console's settings, read from `TAILOR_<FIELD>`."""

from pydantic import Field, SecretStr

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=1, le=65535)
    # Addresses whose X-Forwarded-For and X-Forwarded-Proto headers are trusted, separated by commas.
    http_trusted_proxies: str = ""
    # Without a password, only API keys can sign in.
    password: SecretStr | None = Field(None, min_length=8)
    session_secret: SecretStr = Field(min_length=32)
