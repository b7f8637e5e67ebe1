"""The bills of materials are valid CycloneDX 1.6 and hold every package of their lock, with its licence and its files."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from deploy.licences import licence_of, load_rules
from deploy.locks import load_lock, load_metadata, load_sets, subset
from deploy.sbom import bill, main

pytestmark = pytest.mark.release

SETS = load_sets()
METADATA = load_metadata()


def components(text: str) -> dict[str, dict[str, Any]]:
    """The components of a bill, by name and version."""
    return {f"{part['name']}=={part['version']}": part for part in json.loads(text)["components"]}


@pytest.mark.parametrize("name", SETS.sets)
def test_the_bill_of_a_set_is_valid_and_holds_every_locked_package_with_licence_and_hashes(name: str) -> None:
    text = bill(name)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts = components(text)
    pins = {pin.release: pin for pin in (*load_lock(name), *load_lock("pip"))}
    assert set(parts) == set(pins)
    for release, pin in pins.items():
        files = {
            reference["url"].rpartition("file_name=")[2]: reference["hashes"][0]["content"]
            for reference in parts[release]["externalReferences"]
        }
        assert set(files.values()) == set(pin.hashes)
        assert all(file.endswith((".whl", ".tar.gz")) for file in files)
        assert parts[release]["licenses"] == [{"expression": licence_of(release, METADATA[release], load_rules())}]


def test_a_bill_that_is_not_valid_is_noticed() -> None:
    broken = bill("client").replace('"type": "library"', '"type": "thing"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_the_bill_of_an_image_holds_what_its_dockerfile_installs() -> None:
    parts = components(bill("cuda", "inference", ["vllm"]))
    assert set(parts) == {pin.release for pin in (*subset("cuda", "inference", ["vllm"]), *load_lock("pip"))}
    assert any(release.startswith("vllm==") for release in parts)
    assert not any(release.startswith("pytest==") for release in parts)


def test_a_bill_says_which_package_requires_which() -> None:
    graph = {entry["ref"]: entry.get("dependsOn", []) for entry in json.loads(bill("client"))["dependencies"]}
    (typer,) = (ref for ref in graph if ref.startswith("pkg:pypi/typer@"))
    (root,) = (ref for ref in graph if ref.startswith("tailor-platform@"))
    assert any(ref.startswith("pkg:pypi/shellingham@") for ref in graph[typer])
    assert typer in graph[root]
    assert not any(ref.startswith("pkg:pypi/shellingham@") for ref in graph[root])


def test_the_same_locks_give_the_same_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "one"), "--extra", "console"])
    main([str(tmp_path / "two"), "--extra", "console"])
    first, second = (path / "tailor-console-cpu.cdx.json" for path in (tmp_path / "one", tmp_path / "two"))
    assert first.read_bytes() == second.read_bytes()
    assert capsys.readouterr().out.splitlines() == [str(first), str(second)]
