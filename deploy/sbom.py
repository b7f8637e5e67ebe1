"""Bills of materials, CycloneDX 1.6 in JSON, of the locked sets or of one service's image: `python -m deploy.sbom FOLDER`.

Everything comes from `requirements/`: the same locks give the same bytes.
"""

import argparse
import hashlib
import tomllib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.licences import LicenceRules, licence_of, load_rules
from deploy.locks import (
    ROOT,
    Metadata,
    Pin,
    Sets,
    environment,
    load_lock,
    load_metadata,
    load_sets,
    project_requirements,
    roots_of,
    subset,
)

Packages = Mapping[str, Metadata]


def package_component(pin: Pin, metadata: Packages, rules: LicenceRules) -> Component:
    """The component of one pin, with its licence and the files that the lock allows."""
    known = metadata[pin.release]
    locator = PackageURL("pypi", None, pin.name, pin.version)
    files = {name: digest for name, digest in known.files.items() if digest in pin.hashes}
    return Component(
        name=pin.name,
        version=pin.version,
        type=ComponentType.LIBRARY,
        bom_ref=locator.to_string(),
        purl=locator,
        licenses=[LicenseExpression(licence_of(pin.release, known, rules))],
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(PackageURL("pypi", None, pin.name, pin.version, {"file_name": name}).to_string()),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
            )
            for name, digest in files.items()
        ],
        properties=[Property(name="tailor:marker", value=str(pin.marker))] if pin.marker else [],
    )


@dataclass(frozen=True)
class Contents:
    """The packages of a set, or of an image, and the names that Tailor itself requires."""

    title: str
    pins: tuple[Pin, ...]
    roots: frozenset[str]


def contents_of(sets: Sets, name: str, extra: str = "", packages: Iterable[str] = ()) -> Contents:
    """The contents of one set, or of the part of it that one extra needs."""
    title, pins, roots = sets.sets[name]["title"], load_lock(name), roots_of(sets, name)
    if extra:
        title, pins = f"{title}; the image of {extra}", subset(name, extra, packages)
        roots = [*project_requirements([extra]), *map(Requirement, packages)]
    # The installer leaves its pip in the environment.
    pins = [*pins, *load_lock("pip")]
    return Contents(title, tuple(pins), frozenset(canonicalize_name(requirement.name) for requirement in roots))


def build_bom(contents: Contents, metadata: Packages, rules: LicenceRules, pythons: Iterable[str]) -> Bom:
    """The bill of these contents: Tailor, the packages, and which requires which on some supported Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [contents.title, project["version"], *(pin.line() for pin in contents.pins)]
    digest = hashlib.sha256("\n".join(lines).encode()).digest()
    root = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=f"{project['name']}@{project['version']}",
        description=contents.title,
        licenses=[LicenseExpression(project["license"])],
    )
    components = {pin.release: package_component(pin, metadata, rules) for pin in contents.pins}
    bom = Bom(serial_number=uuid.UUID(bytes=digest[:16], version=4), components=components.values())
    bom.metadata.component = root
    # Time and tool would change the bytes of the same contents.
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.metadata.tools.components.clear()
    bom.register_dependency(root, named(components, contents.roots))
    for release, component in components.items():
        bom.register_dependency(component, named(components, requirements_of(metadata[release], pythons)))
    return bom


def named(components: Mapping[str, Component], names: Iterable[str]) -> list[Component]:
    """The components with these names."""
    wanted = set(names)
    return [component for component in components.values() if component.name in wanted]


def requirements_of(metadata: Metadata, pythons: Iterable[str]) -> set[str]:
    """The names that a package requires, with any extra, on one of these Pythons."""
    return {
        canonicalize_name(requirement.name)
        for requirement in metadata.requirements
        for python in pythons
        if requirement.marker is None
        or "extra" in str(requirement.marker)
        or requirement.marker.evaluate(environment(python))
    }


def render(bom: Bom) -> str:
    """CycloneDX 1.6 in JSON."""
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


def bill(name: str, extra: str = "", packages: Iterable[str] = ()) -> str:
    """The bill of one set, or of the part of it that one extra needs."""
    sets = load_sets()
    return render(build_bom(contents_of(sets, name, extra, packages), load_metadata(), load_rules(), sets.pythons))


def main(arguments: list[str] | None = None) -> None:
    """Write the bill of every set, or of one image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files are written")
    parser.add_argument("--extra", default="", help="the service whose image is described")
    parser.add_argument("--set", default="cpu", help="with --extra: the set that the image is built from")
    parser.add_argument("--packages", default="", help="with --extra: more packages of the set, separated by spaces")
    options: Any = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.extra:
        path = options.folder / f"tailor-{options.extra}-{options.set}.cdx.json"
        path.write_text(bill(options.set, options.extra, options.packages.split()), encoding="utf-8")
        print(path)
        return
    for name in load_sets().sets:
        path = options.folder / f"tailor-{name}.cdx.json"
        path.write_text(bill(name), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
