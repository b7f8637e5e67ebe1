"""The scan finds secrets in any committed file, keeps them out of its output, and knows what only looks like one."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

from deploy.secret_scan import KnownSecrets, committed_files, find_secrets, load_rules, main

# Put together here, so that this file has none.
AWS = "AKIA" + "QYLPMN5HFIQR7XYZ"
GITHUB = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
KEY = "-----BEGIN " + "RSA PRIVATE KEY-----"
NONE = KnownSecrets((), (), ())


def kinds(root: Path, name: str, text: str, rules: KnownSecrets = NONE) -> list[tuple[int, str]]:
    """Line and kind of what is found in a file with this text."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return [(line, kind) for _, line, kind in find_secrets([name], rules, root)]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.py", f'key = "{AWS}"\n', "AWS Access Key"),
        ("a.yaml", f"token: {GITHUB}\n", "GitHub Token"),
        ("a.pem", f"{KEY}\nMIIEpAIBAAKCAQEAx3Rk\n", "Private Key"),
        ("a.env", "DATABASE_URL=postgresql://svc:pa55word@db3:5432/orders\n", "Basic Auth Credentials"),
        ("a.toml", 'admin_password = "Tr0ub4dor&3xyz"\n', "Secret Keyword"),
    ],
)
def test_a_secret_is_found_in_code_settings_and_key_files(tmp_path: Path, name: str, text: str, kind: str) -> None:
    assert kind in {found for _, found in kinds(tmp_path, name, text)}


def test_a_secret_in_a_test_is_found_and_a_made_up_password_there_is_not(tmp_path: Path) -> None:
    text = f'password = "correct horse"\nkey = "{AWS}"\n'
    assert {line for line, _ in kinds(tmp_path, "tests/unit/test_a.py", text, load_rules())} == {2}


def test_an_entry_covers_only_lines_of_its_form_in_its_files(tmp_path: Path) -> None:
    rules = load_rules()
    assert kinds(tmp_path, "tailor/errors.py", '    WRONG_SECRET = "WRONG_SECRET"\n', rules) == []
    assert kinds(tmp_path, "tailor/errors.py", '    wrong_secret = "hunter2-and-more"\n', rules)
    assert kinds(tmp_path, "tailor/other.py", '    WRONG_SECRET = "WRONG_SECRET"\n', rules)


def test_the_output_names_the_place_and_not_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.py"
    path.write_text(f'key = "{AWS}"\n', encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["secret_scan", str(path)])
    assert main() == 1
    output = capsys.readouterr().out
    assert f"{path}:1: AWS Access Key" in output
    assert AWS not in output


def test_every_exception_has_a_reason_and_files() -> None:
    committed = committed_files()
    for known in load_rules().known:
        assert len(known.reason) > 8
        assert all(any(fnmatch(path, pattern) for path in committed) for pattern in known.paths), known.paths
