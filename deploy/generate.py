"""Generate `tailor/api` and the event docs from `proto/`; `--check` says whether what is committed is up to date."""

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTPUTS = ("--python_out", "--grpc_python_out", "--mypy_out", "--mypy_grpc_out")


def generate(target: Path) -> None:
    """Write the generated package `tailor/api` under a folder."""
    protos = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        str(ROOT / "proto"),
        *(f"{out}={target}" for out in OUTPUTS),
        *protos,
    ]
    # protoc finds mypy's plugins next to this interpreter.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    subprocess.run(command, check=True, env=environment, cwd=ROOT / "proto", stderr=subprocess.DEVNULL)
    for folder in [
        target / "tailor" / "api",
        *(path for path in (target / "tailor" / "api").rglob("*") if path.is_dir()),
    ]:
        (folder / "__init__.py").touch()


def differences(fresh: Path, committed: Path) -> list[str]:
    """Files of which only one side exists, or that differ."""
    files = {path.relative_to(fresh) for path in fresh.rglob("*.py*")} | {
        path.relative_to(committed) for path in committed.rglob("*.py*") if "__pycache__" not in path.parts
    }
    return sorted(
        str(file)
        for file in files
        if not (
            (fresh / file).exists()
            and (committed / file).exists()
            and filecmp.cmp(fresh / file, committed / file, shallow=False)
        )
    )


def main() -> int:
    """Generate, or compare; the exit status."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        stale = differences(Path(directory) / "tailor" / "api", ROOT / "tailor" / "api")
    for file in stale:
        print(f"tailor/api/{file} is not what proto/ generates; run `make proto`")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
