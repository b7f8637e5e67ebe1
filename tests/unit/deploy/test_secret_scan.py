"""The scan of `make check` finds secrets in any file, and its baseline knows what only looks like one."""

import subprocess
import sys
from pathlib import Path

import pytest

from tailor.local.layout import ROOT

HOOK = [str(Path(sys.executable).with_name("detect-secrets-hook")), "--baseline", str(ROOT / ".secrets.baseline")]
# Put together here, so that this file has none.
AWS = "AKIA" + "QYLPMN5HFIQR7XYZ"
GITHUB = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"  # pragma: allowlist secret
KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"
ADDRESS = "postgresql://svc:" + "pa55word@db3:5432/orders"


def scan(folder: Path, name: str, text: str, *options: str) -> str:
    """What the hook prints about a file with this text."""
    (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run([*HOOK, *options, name], cwd=folder, capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stdout), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.py", f'key = "{AWS}"\n', "AWS Access Key"),
        ("a.yaml", f"token: {GITHUB}\n", "GitHub Token"),
        ("a.pem", f"{KEY}\nMIIEpAIBAAKCAQEAx3Rk\n", "Private Key"),
        ("a.env", f"DATABASE_URL={ADDRESS}\n", "Basic Auth Credentials"),
        ("a.toml", 'admin_password = "Tr0ub4dor&3xyz"\n', "Secret Keyword"),
    ],
)
def test_a_secret_is_found_in_code_settings_and_key_files(tmp_path: Path, name: str, text: str, kind: str) -> None:
    output = scan(tmp_path, name, text)
    assert kind in output
    assert f"Location:    {name}:" in output
    assert AWS not in output


def test_in_tests_a_made_up_password_is_not_a_secret_and_a_key_is(tmp_path: Path) -> None:
    text = f'password = "correct horse"\nkey = "{AWS}"\n'
    output = scan(tmp_path, "test_a.py", text, "--disable-plugin", "KeywordDetector")
    assert "test_a.py:2" in output
    assert "test_a.py:1" not in output


def test_the_name_of_a_reason_is_not_a_secret(tmp_path: Path) -> None:
    assert not scan(tmp_path, "errors.py", '    WRONG_SECRET = "WRONG_SECRET"\n')
    assert scan(tmp_path, "errors.py", '    wrong_secret = "hunter2-and-more"\n')
