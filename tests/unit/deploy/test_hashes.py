"""The installer takes only the files whose SHA-256 the lock has, from whichever index, and names a package whose file was changed."""

import hashlib
import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import install
from deploy.install import InstallError

PYTHON = Path(sys.executable)
FILE = "tinypackage-1.0-py3-none-any.whl"


def wheel(text: str) -> bytes:
    """A wheel of one module with this text."""
    files = {
        "tinypackage.py": text,
        "tinypackage-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tinypackage\nVersion: 1.0\n",
        "tinypackage-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tinypackage-1.0.dist-info/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in files.items():
            # A ZipInfo has a fixed time, so that every process of a parallel run makes the same file.
            archive.writestr(zipfile.ZipInfo(name), value)
    return content.getvalue()


GOOD, CHANGED = wheel("SAFE = True"), wheel("SAFE = False")


def sha256(content: bytes) -> str:
    """The digest as the lock and an index write it."""
    return hashlib.sha256(content).hexdigest()


PIN = f"tinypackage==1.0 --hash=sha256:{sha256(GOOD)}"


@contextmanager
def index(content: bytes, digest: str) -> Iterator[str]:
    """A package index with this file, which it says has this digest; the value is its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f'<a href="/{FILE}#sha256={digest}">{FILE}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html")
            self.end_headers()
            self.wfile.write(content if self.path.endswith(".whl") else page)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip installs into, with no settings but the test's."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    return tmp_path / "target"


def test_the_file_of_the_lock_is_installed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(GOOD, sha256(GOOD)) as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        install.install_pins(PYTHON, [PIN])
    assert (target / "tinypackage.py").read_text() == "SAFE = True"


@pytest.mark.parametrize("digest", [sha256(CHANGED), sha256(GOOD)], ids=["of the changed file", "of the lock"])
def test_a_changed_file_is_refused_in_one_sentence_that_names_its_package(
    digest: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with index(CHANGED, digest) as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        with pytest.raises(InstallError, match=r"tinypackage==1\.0 that is not in the lock.*not installed") as failure:
            install.install_pins(PYTHON, [PIN])
        assert f"{address.removesuffix('/simple')}/{FILE} " in str(failure.value)
    assert "\n" not in str(failure.value)
    assert not (target / "tinypackage.py").exists()


def test_of_two_indexes_the_file_of_the_lock_is_taken(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(CHANGED, sha256(CHANGED)) as first, index(GOOD, sha256(GOOD)) as second:
        monkeypatch.setenv("PIP_INDEX_URL", first)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", second)
        install.install_pins(PYTHON, [PIN])
    assert (target / "tinypackage.py").read_text() == "SAFE = True"


def test_a_pin_without_a_hash_is_not_installed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with index(GOOD, sha256(GOOD)) as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        with pytest.raises(InstallError):
            install.install_pins(PYTHON, ["tinypackage==1.0"])
    assert not target.exists() or not (target / "tinypackage.py").exists()


def test_a_changed_file_that_uv_meets_is_named_too() -> None:
    text = (
        "  x Failed to download `torch==2.13.0+cpu`\n  `-> Hash mismatch for `torch==2.13.0+cpu`\n\n      Expected:\n"
    )
    assert "a file of torch==2.13.0+cpu that is not in the lock" in install.remedy(text)


def test_every_package_that_the_installer_asks_pip_for_comes_with_its_hashes() -> None:
    for name in ("client", "client-test", "cpu", "cpu-index", "cuda", "pip"):
        assert all("==" in pin and " --hash=sha256:" in pin for pin in install.read_lock(name))
    assert [pin.partition("==")[0] for pin in install.pins_of("cpu", "uv", "torch")] == ["torch", "uv"]
