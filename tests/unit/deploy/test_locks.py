"""The locks have what pyproject.toml asks for, with hashes and without an index, and every licence was allowed or read."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.install import REQUIREMENTS, ROOT, SETS, InstallError, locks_of, select_pins

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOTICES = (ROOT / "THIRD-PARTY-NOTICES.md").read_text(encoding="utf-8")
PIN = re.compile(
    r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+)", re.MULTILINE
)


def read(name: str) -> dict[str, str]:
    """The versions of a set, for Linux on x86-64 with Python 3.11."""
    machine = {"python_full_version": "3.11.0", "python_version": "3.11", "sys_platform": "linux"}
    machine |= {"platform_machine": "x86_64", "platform_python_implementation": "CPython"}
    pins = [pin for lock in locks_of(name) for pin in PIN.findall(Path(lock).read_text(encoding="utf-8"))]
    return {pin[0]: pin[1] for pin in pins if not pin[2] or Marker(pin[2]).evaluate(dict(machine))}


def requirements(name: str) -> list[Requirement]:
    """What the project requires of a set."""
    groups, extras = PROJECT["dependency-groups"], PROJECT["project"]["optional-dependencies"]
    lines = list(PROJECT["project"]["dependencies"])
    if name == "client-test":
        lines += [*extras["plots"], *groups["test"]]
    elif name != "client":
        lines += [line for extra in extras.values() for line in extra]
        lines += [line for line in groups["dev"] if isinstance(line, str)]
    return [Requirement(line) for line in lines if not line.startswith("tailor-platform")]


@pytest.mark.parametrize("name", SETS)
def test_a_set_satisfies_the_project(name: str) -> None:
    pins = read(name)
    for requirement in requirements(name):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"{requirement} is not in {name}: run make lock"
        assert requirement.specifier.contains(Version(version), prereleases=True), (name, requirement, version)


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.name)
def test_every_pin_of_a_lock_has_hashes_and_no_lock_names_an_index(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    if path.name.startswith(("excludes", "overrides")):
        return
    assert PIN.sub("", text + "\n").replace("\n", "").startswith("#")
    assert not [line for line in PIN.sub("", text + "\n").splitlines() if line and not line.startswith("#")]


def test_the_sets_agree_where_they_have_the_same_package() -> None:
    index = read("cpu-index")
    for name in ("client", "client-test", "cpu"):
        assert {key: version.removesuffix("+cpu") for key, version in read(name).items()}.items() <= index.items()


def test_the_cpu_set_has_the_cpu_build_and_no_cuda_library() -> None:
    pins = read("cpu")
    assert {name for name, version in pins.items() if version.endswith("+cpu")} == {"torch", "torchvision"}
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-"))]


def test_an_image_gets_the_pins_of_its_packages_with_their_hashes() -> None:
    locks = [Path(lock) for lock in locks_of("cpu")]
    (grpcio, torch) = select_pins(locks, {"torch", "grpcio"})
    assert grpcio.startswith("grpcio==") and "--hash=sha256:" in grpcio
    assert torch.startswith("torch==") and "+cpu" in torch
    with pytest.raises(InstallError, match="does not have unknown-package"):
        select_pins(locks, {"torch", "unknown-package"})


def test_the_notices_name_every_package_at_its_version() -> None:
    unlisted = set(PROJECT["tool"]["pip-licenses"]["ignore-packages"])
    rows = {
        (canonicalize_name(name), version)
        for name, version in re.findall(r"^\| (\S+) +\| (\d\S*) +\|", NOTICES, re.MULTILINE)
    }
    system = {"pip", "setuptools", "wheel", "prettytable", "wcwidth", "pip-licenses", "colorama"}
    for name, version in read("cpu-index").items():
        if name not in unlisted | system:
            assert (name, version) in rows, f"{name}=={version} is missing: run make notices"


def test_the_notices_name_every_package_that_pip_licenses_does_not_list() -> None:
    head = (REQUIREMENTS / "notices.md").read_text(encoding="utf-8")
    assert NOTICES.startswith(head)
    named = set(re.findall(r"[a-z0-9-]+", head))
    cuda = read("cuda").keys() - read("cpu-index").keys()
    missing = (cuda | set(PROJECT["tool"]["pip-licenses"]["ignore-packages"])) - named - {"tailor-platform"}
    assert not missing, f"read the licences of {missing} and add them to requirements/notices.md"


def test_the_set_for_a_processor_has_nothing_proprietary() -> None:
    (terms,) = (line for line in NOTICES.splitlines() if line.startswith("- **NVIDIA's terms.**"))
    assert not set(re.findall(r"`([a-z0-9-]+)`", terms)) & read("cpu").keys()


def test_the_project_declares_the_pythons_of_the_locks() -> None:
    python = Requirement(f"python{PROJECT['project']['requires-python']}")
    assert all(python.specifier.contains(f"{version}.7") for version in ("3.11", "3.12", "3.13"))
    assert not python.specifier.contains("3.10.9")
    assert not python.specifier.contains("3.14.0")
