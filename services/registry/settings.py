"""The registry's settings."""

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    # SHA-256 of the operator key that the installation begins with; its secret never reaches the registry before it is used.
    bootstrap_operator_key_sha256: str = ""
