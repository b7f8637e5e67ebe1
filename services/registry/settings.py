"""The registry's settings, read from `TAILOR_<FIELD>`."""

from tailor.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `TAILOR_<FIELD>`."""

    # SHA-256 of the installation's first operator key. The registry never sees the secret before its first use.
    bootstrap_operator_key_sha256: str = ""
    # The same of data protection's first key: only data protection gives that role to further keys.
    bootstrap_protection_key_sha256: str = ""
    # True to hold erasures, and further keys of data protection, until a second key of data protection approves them.
    four_eyes: bool = False
