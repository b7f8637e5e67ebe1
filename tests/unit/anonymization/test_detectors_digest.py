"""The digest of what finds values changes with it, and only with it."""

import base64
from pathlib import Path

from services.anonymization.policy.detectors import detectors_digest
from services.anonymization.settings import Settings

KEY = base64.b64encode(b"a" * 32).decode()
OTHER = base64.b64encode(b"b" * 32).decode()


def make_settings(**changes: object) -> Settings:
    return Settings(**{"quarantine_key": KEY, "vault_key": KEY, **changes})  # type: ignore[arg-type]


def test_changes_with_models_settings_and_files_of_detectors(tmp_path: Path) -> None:
    file = tmp_path / "detectors.toml"
    file.write_text("a = 1")
    first = detectors_digest(make_settings(), ["pydantic"], [file])
    file.write_text("a = 2")
    others = {
        detectors_digest(make_settings(), ["pydantic"], [file]),
        detectors_digest(make_settings(), ["pydantic"]),
        detectors_digest(make_settings(), []),
        detectors_digest(make_settings(phone_regions=("GB",)), ["pydantic"]),
    }
    assert len(others) == 4 and first not in others


def test_does_not_change_with_keys_addresses_and_the_policy(tmp_path: Path) -> None:
    elsewhere = make_settings(vault_key=OTHER, rpc_port=1, policy_file=tmp_path, lists_dir=tmp_path, log_level="DEBUG")
    assert detectors_digest(make_settings(), [""]) == detectors_digest(elsewhere, [])
