"""Images for pods of the tests, written without Docker. The tools: busybox, and a `python` that ends as a test tells it. Its sandbox runs it, too.

`python -m tests.cluster.tools_image FILE` writes it, for a cluster of your own.
"""

import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

NAME = "docker.io/tests/tools:1"
# In place of a worker of training: its module is ignored.
PYTHON = """#!/bin/sh
trap 'exit "${PLAYED_SIGNAL_EXIT:-143}"' TERM
if [ -n "$PLAYED_EXIT" ]; then exit "$PLAYED_EXIT"; fi
if [ -n "$PLAYED_MEMORY" ]; then exec tail -c "$PLAYED_MEMORY" /dev/zero; fi
sleep 600 & wait $!
"""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NEEDED = {"busybox": "busybox: apt-get install busybox-static"}


def write(output: IO[bytes]) -> None:
    """Write the image as `docker save` would."""
    _write(output, NAME, _layer(), {"Cmd": ["/bin/sleep", "2147483647"]})


def write_program(output: IO[bytes], name: str, program: Path) -> None:
    """Write an image of one statically linked program, which it starts, and of an empty /tmp."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        _add_folders(archive)
        _add(archive, f"bin/{program.name}", program.read_bytes(), 0o755)
    _write(output, name, content.getvalue(), {"Entrypoint": [f"/bin/{program.name}"]})


def _write(output: IO[bytes], name: str, layer: bytes, start: Mapping[str, Sequence[str]]) -> None:
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], **start},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(fileobj=output, mode="w") as archive:
        _add(archive, "layer.tar", layer)
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer() -> bytes:
    program = shutil.which("busybox")
    assert program is not None
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        _add_folders(archive)
        _add(archive, "bin/busybox", Path(program).read_bytes(), 0o755)
        _add(archive, "bin/python", PYTHON.encode(), 0o755)
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
    return content.getvalue()


def _add_folders(archive: tarfile.TarFile) -> None:
    for folder in ("bin", "tmp"):
        entry = tarfile.TarInfo(folder)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
        archive.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    with Path(sys.argv[1]).open("wb") as file:
        write(file)
