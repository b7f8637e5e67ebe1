"""The console's settings, read from `TAILOR_<FIELD>`."""

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from tailor.settings import ServiceSettings

# Without TLS, only on this machine.
ADDRESS = r"^($|https://[^/?#\s]+[^?#\s]*|http://(127\.0\.0\.1|localhost)(:\d+)?(/[^?#\s]*)?)$"


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=1, le=65535)
    # Addresses whose X-Forwarded-For and X-Forwarded-Proto headers are trusted, separated by commas.
    http_trusted_proxies: str = ""
    # Without a password, only people and API keys can sign in.
    password: SecretStr | None = Field(None, min_length=8)
    session_secret: SecretStr = Field(min_length=32)
    # The OpenID provider by which people with a mail address sign in, as its discovery document names it; empty for none.
    oidc_issuer: str = Field("", max_length=512, pattern=ADDRESS)
    oidc_client_id: str = ""
    # Contains the client's secret. Without one, the console is a public client, and PKCE alone protects the code.
    oidc_client_secret_file: Path | None = None
    # Where browsers reach the console. The provider must allow `<this>/openid/callback` as a redirect URI.
    public_url: str = Field("", max_length=512, pattern=ADDRESS)

    @model_validator(mode="after")
    def check_provider(self) -> "Settings":
        """Raises ValueError for half of the provider's settings."""
        if self.oidc_issuer and not (self.oidc_client_id and self.public_url):
            raise ValueError("TAILOR_OIDC_ISSUER needs TAILOR_OIDC_CLIENT_ID and TAILOR_PUBLIC_URL")
        return self
