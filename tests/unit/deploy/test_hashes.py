"""The installer takes only the files whose SHA-256 the lock has, from whichever index, and names a package whose file was changed."""

import hashlib
import io
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy import install
from deploy.install import Choice, Environment, InstallError
from deploy.pip_settings import uv_environment, uv_variables

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
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An empty environment with uv, for a pip without settings of the machine."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([str(uv), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    (tmp_path / "venv" / "bin" / "uv").symlink_to(uv)
    return Environment(tmp_path / "venv" / "bin" / "python", {})


def sync(environment: Environment, pin: str = PIN, **settings: str) -> None:
    """Install a pin with these settings of pip."""
    lock = environment.python.parents[2] / "lock.txt"
    lock.write_text(pin)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        configured = replace(environment, variables=uv_environment(sys.executable))
        install.sync(configured, Choice("client", "it was named"), [str(lock)])


def installed(environment: Environment) -> str:
    """The text of the installed module, or nothing."""
    return "".join(path.read_text() for path in environment.python.parents[1].rglob("tinypackage.py"))


def test_the_file_of_the_lock_is_installed(environment: Environment) -> None:
    with index(GOOD, sha256(GOOD)) as address:
        sync(environment, PIP_INDEX_URL=address)
    assert installed(environment) == "SAFE = True"


@pytest.mark.parametrize("digest", [sha256(CHANGED), sha256(GOOD)], ids=["of the changed file", "of the lock"])
def test_a_changed_file_is_refused_and_its_package_named(
    digest: str, environment: Environment, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        index(CHANGED, digest) as address,
        pytest.raises(InstallError, match="another hash than the lock's was changed"),
    ):
        sync(environment, PIP_INDEX_URL=address)
    assert "tinypackage==1.0" in capfd.readouterr().err
    assert not installed(environment)


def test_of_two_indexes_the_file_of_the_lock_is_taken(environment: Environment) -> None:
    with index(CHANGED, sha256(CHANGED)) as first, index(GOOD, sha256(GOOD)) as second:
        sync(environment, PIP_INDEX_URL=first, PIP_EXTRA_INDEX_URL=second)
    assert installed(environment) == "SAFE = True"


def test_a_pin_without_a_hash_is_not_installed(environment: Environment) -> None:
    with index(GOOD, sha256(GOOD)) as address, pytest.raises(InstallError):
        sync(environment, "tinypackage==1.0", PIP_INDEX_URL=address)
    assert not installed(environment)


def test_uv_takes_the_settings_of_pip() -> None:
    listing = "\n".join(
        [
            "global.index-url='https://one.example/simple'",
            ":env:.index-url='https://two.example/simple'",
            "global.extra-index-url='\\nhttps://three.example/simple\\nhttps://four.example/simple'",
            ":env:.find-links='/wheels /more'",
            "install.trusted-host='two.example'",
            "global.cert='/ca.crt'",
        ]
    )
    assert uv_variables(listing) == {
        "UV_DEFAULT_INDEX": "https://two.example/simple",
        "UV_INDEX": "https://three.example/simple https://four.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "two.example",
        "SSL_CERT_FILE": "/ca.crt",
    }
