"""Reading a policy file, and reporting everything that is wrong with it."""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError

from services.anonymization.domain import COARSE_ONLY, ENTITY_TYPES, Action, Coarseness, Policy, Rule
from tailor.errors import InvalidArgument, Reason

DEFAULT = Path(__file__).with_name("default.toml")
NAMED = Path(__file__).with_name("named")
CITATIONS = Path(__file__).with_name("citations.toml")
GENERALISED = ("DATE_TIME", "DATE_OF_BIRTH", "ADDRESS", "MONEY", "AGE", "POSTCODE")
OWN_TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
LONGEST_SHOWN = 40
MIN_AGE_YEARS, MAX_AGE_YEARS = 2, 50


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error.msg} at character {error.pos}") from None
    except (OverflowError, RecursionError):
        raise ValueError("repeats too often or nests too deeply") from None
    if compiled.match("") is not None:
        raise ValueError("matches the empty text; it must match at least one character")
    return value


def _bands(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or value[0] <= 0 or any(upper <= lower for lower, upper in pairwise(value)):
        raise ValueError("must be whole amounts above 0 in ascending order, such as [1000, 10000]")
    return value


def _age(value: Any) -> int:
    """The span of years; 0 for the policy that changes only the ages of 90 and more."""
    if value == "90+":
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and MIN_AGE_YEARS <= value <= MAX_AGE_YEARS:
        return value
    raise ValueError(f'must be a whole number from {MIN_AGE_YEARS} to {MAX_AGE_YEARS}, or "90+"')


RegularExpression = Annotated[str, AfterValidator(_pattern)]
Term = Annotated[str, Field(min_length=2, max_length=200)]
# A path within the lists folder of the installation.
ListPath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,4}$")
]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Slugs = Annotated[
    frozenset[Slug], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]


class PolicyTable(BaseModel):
    """A table of the file. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelsTable(PolicyTable):
    """The documents to which a rule applies."""

    source: Slugs | None = None
    department: Slugs | None = None
    confidentiality: Slugs | None = None


class RuleTable(PolicyTable):
    """Actions that override the default table for some documents."""

    labels: LabelsTable
    types: dict[str, Action]

    def to_rule(self) -> Rule:
        return Rule({name: values for name, values in self.labels if values is not None}, self.types)


class GeneraliseTable(PolicyTable):
    """How far the action `generalise` goes."""

    DATE_TIME: Literal["month", "year"] = "month"
    DATE_OF_BIRTH: Literal["month", "year"] = "year"
    ADDRESS: Literal["town", "postcode-area"] = "town"
    MONEY: Annotated[tuple[int, ...], AfterValidator(_bands)] = Coarseness.money_bands
    AGE: Annotated[int, BeforeValidator(_age)] = Coarseness.age_years


class ListFile(PolicyTable):
    """A file of names, one per line, within the lists folder."""

    file: ListPath


def _entry_kind(entry: Any) -> str:
    return "@file" if isinstance(entry, (dict, ListFile)) else "@term"


ListEntry = Annotated[Annotated[Term, Tag("@term")] | Annotated[ListFile, Tag("@file")], Discriminator(_entry_kind)]


class AllowTable(PolicyTable):
    """Texts that are never personal."""

    terms: tuple[ListEntry, ...] = ()
    patterns: tuple[RegularExpression, ...] = ()
    citations: tuple[Literal["eu", "uk", "us", "standards"], ...] = ()


class PolicyFile(PolicyTable):
    """The whole file, joined with the policy that it extends."""

    types: dict[str, Action]
    rules: tuple[RuleTable, ...] = ()
    generalise: GeneraliseTable = GeneraliseTable()
    codes: dict[str, tuple[RegularExpression, ...]] = {}
    deny: dict[str, tuple[ListEntry, ...]] = {}
    allow: AllowTable = AllowTable()

    def to_policy(self, digest: str) -> Policy:
        coarse = self.generalise
        files = {kind: _files_of(entries) for kind, entries in self.deny.items()}
        return Policy(
            digest=digest,
            actions=self.types,
            codes=self.codes,
            deny={kind: _terms_of(entries) for kind, entries in self.deny.items()},
            allow_terms=_terms_of(self.allow.terms),
            allow_patterns=(*self.allow.patterns, *_citation_patterns(self.allow.citations)),
            deny_files={kind: paths for kind, paths in files.items() if paths},
            allow_files=_files_of(self.allow.terms),
            rules=tuple(table.to_rule() for table in self.rules),
            coarseness=Coarseness(coarse.DATE_TIME, coarse.DATE_OF_BIRTH, coarse.ADDRESS, coarse.MONEY, coarse.AGE),
        )


def _terms_of(entries: Sequence[str | ListFile]) -> tuple[str, ...]:
    return tuple(entry for entry in entries if isinstance(entry, str))


def _files_of(entries: Sequence[str | ListFile]) -> tuple[str, ...]:
    return tuple(entry.file for entry in entries if isinstance(entry, ListFile))


@cache
def read_citations() -> Mapping[str, tuple[str, ...]]:
    """The patterns for citations of laws, by their law's origin."""
    tables = tomllib.loads(CITATIONS.read_text(encoding="utf-8"))
    return {name: tuple(entry["pattern"] for entry in table["patterns"]) for name, table in tables.items()}


def _citation_patterns(origins: Sequence[str]) -> tuple[str, ...]:
    return tuple(pattern for origin in dict.fromkeys(origins) for pattern in read_citations()[origin])


def policy_names() -> list[str]:
    """The names of the policies that come with the service."""
    return ["default", *sorted(path.stem for path in NAMED.glob("*.toml"))]


def named_policy(name: str) -> bytes:
    """The TOML of a policy that comes with the service. Raises InvalidArgument (INVALID_POLICY) for an unknown name."""
    if name not in policy_names():
        raise _rejection({"extends": f"is unknown; known policies are {', '.join(policy_names())}"})
    return (DEFAULT if name == "default" else NAMED / f"{name}.toml").read_bytes()


def load_policy(path: Path = DEFAULT) -> Policy:
    """Read a policy from a TOML file. Raises InvalidArgument (INVALID_POLICY) if the file cannot be read, and like `parse_policy`."""
    return parse_policy(read_policy_file(path))


def read_policy_file(path: Path) -> bytes:
    """The bytes of a policy file. Raises InvalidArgument (INVALID_POLICY) if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        raise InvalidArgument(Reason.INVALID_POLICY, "TAILOR_POLICY_FILE must name a readable TOML file.") from None


def parse_policy(data: bytes) -> Policy:
    """Read a policy in TOML. Raises InvalidArgument (INVALID_POLICY) with a violation for every wrong field, saying what would be right."""
    content, digest = _read_tables(data)
    try:
        file = PolicyFile.model_validate(content)
    except ValidationError as error:
        raise _rejection(_violations(content, error)) from None
    problems = dict(_problems(file))
    if problems:
        raise _rejection(problems)
    return file.to_policy(digest)


def _read_tables(data: bytes) -> tuple[dict[str, Any], str]:
    """The tables of a file, joined with those of the policy that it extends, and their digest."""
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _rejection({"policy": f"is not TOML: {error}"}) from None
    except UnicodeDecodeError:
        raise _rejection({"policy": "is not UTF-8"}) from None
    digest = hashlib.sha256(data).hexdigest()
    name = content.pop("extends", None)
    if name is None:
        return content, digest
    parent, parent_digest = _read_tables(named_policy(str(name)))
    return _extend(parent, content), hashlib.sha256(f"{parent_digest}{digest}".encode()).hexdigest()


def _extend(parent: Any, extension: Any) -> Any:
    """The own tables over the parent's. Own actions and bands win; lists of names, patterns and rules are joined, the own ones first."""
    if isinstance(parent, dict) and isinstance(extension, dict):
        return parent | {
            key: _extend(parent[key], value) if key in parent else value for key, value in extension.items()
        }
    if (
        isinstance(parent, list)
        and isinstance(extension, list)
        and not all(isinstance(entry, int) for entry in extension)
    ):
        return [*extension, *(entry for entry in parent if entry not in extension)]
    return extension


def _rejection(problems: dict[str, str]) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_POLICY, "The policy is invalid and was not applied.", field_violations=problems
    )


def _violations(content: dict[str, Any], failure: ValidationError) -> dict[str, str]:
    """Violations of malformed fields, and of the rest of the file."""
    malformed = failure.errors(include_url=False, include_input=False)
    violations = dict(_violation(error) for error in malformed)
    rest = dict(content)
    for table in {error["loc"][0] for error in malformed}:
        entries = rest.pop(str(table), None)
        if table in ("types", "codes", "deny") and isinstance(entries, dict):
            wrong = {error["loc"][1] for error in malformed if error["loc"][0] == table and len(error["loc"]) > 1}
            # An empty entry still declares its type.
            rest[str(table)] = {
                kind: [] if kind in wrong else entry
                for kind, entry in entries.items()
                if table != "types" or kind not in wrong
            }
    try:
        others = dict(_problems(PolicyFile.model_validate(rest)))
    except ValidationError:
        return violations
    return others | violations


def _violation(error: Any) -> tuple[str, str]:
    """A field and its problem. The field's value is not repeated, because it may be somebody's name."""
    # Pydantic also names what an entry of a list was read as.
    parts = [part for part in error["loc"] if not str(part).startswith("@")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_SHOWN]}" for part in parts)
    match error["type"]:
        case "extra_forbidden":
            reason = f"is unknown; known fields are {', '.join(_known_fields(error['loc']))}"
        case "missing":
            reason = "is missing"
        case "enum" | "literal_error":
            reason = f"must be {error['ctx']['expected']}"
        case "string_pattern_mismatch":
            reason = "must be a label: 1 to 64 of a-z, 0-9 and '-'"
        case "value_error":
            reason = str(error["ctx"]["error"])
        case _:
            reason = error["msg"].replace("Input should", "must").replace("should", "must").replace("tuple", "list")
    return place.removeprefix("."), reason


def _known_fields(place: tuple[Any, ...]) -> list[str]:
    tables: dict[str, type[PolicyTable]] = {
        "rules": RuleTable,
        "labels": LabelsTable,
        "generalise": GeneraliseTable,
        "allow": AllowTable,
    }
    path = [part for part in place[:-1] if part in tables]
    return list(tables[path[-1]].model_fields if path else PolicyFile.model_fields)


def _problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """Problems of well-formed fields."""
    known = {*ENTITY_TYPES, *file.codes, *file.deny}
    for table, types in [("codes", [*file.codes]), ("deny", [*file.deny])]:
        for kind in types:
            if not OWN_TYPE.fullmatch(kind):
                yield f"{table}.{kind[:LONGEST_SHOWN]}", "must be a type in capitals, such as CONTRACT_CODE"
    yield from _wrong_actions("types", file.types, known)
    for place, rule in enumerate(file.rules):
        yield from _wrong_actions(f"rules[{place}].types", rule.types, known)
    yield from _rule_problems(file)
    yield from _list_problems(file)


def _wrong_actions(place: str, actions: dict[str, Action], known: set[str]) -> Iterator[tuple[str, str]]:
    for kind, action in actions.items():
        field = f"{place}.{kind[:LONGEST_SHOWN]}"
        if kind not in known:
            yield (
                field,
                f"is an unknown type; known types are {', '.join(sorted(known))}; your own types need an entry in [codes]",
            )
        elif action is Action.GENERALISE and kind not in GENERALISED:
            yield field, f"cannot be generalised (only {', '.join(GENERALISED)} can); use surrogate, mask or keep"
        elif action is Action.SURROGATE and kind in COARSE_ONLY:
            others = "generalise, mask or keep" if kind in GENERALISED else "mask or keep"
            yield field, f"has no surrogates; use {others}"


def _rule_problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """Rules that never apply, and rules that contradict each other."""
    rules = [table.to_rule() for table in file.rules]
    for place, rule in enumerate(rules):
        if not rule.labels:
            yield (
                f"rules[{place}].labels",
                "names no label, so the rule applies to every document; move it to [types]",
            )
        if not rule.actions:
            yield f"rules[{place}].types", "names no type, so the rule does nothing; name one or remove the rule"
        for kind, action in rule.actions.items():
            first = next((n for n in range(place) if kind in rules[n].actions and rules[n].covers(rule)), None)
            if first is None:
                continue
            field, other = f"rules[{place}].types.{kind[:LONGEST_SHOWN]}", rules[first].actions[kind]
            if rules[first].labels == rule.labels and other is not action:
                yield field, f"contradicts rules[{first}], which has {other} for the same labels; keep one of the two"
            else:
                yield (
                    field,
                    f"never applies: rules[{first}] comes first for all its documents; move the narrower rule up",
                )


def _list_problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """List entries that contradict each other or have no effect."""
    policy = file.to_policy("")
    allowed = {term.casefold() for term in policy.allow_terms}
    seen: dict[str, str] = {}
    for kind, entries in file.deny.items():
        for place, term in enumerate(entries):
            if isinstance(term, ListFile):
                continue
            field = f"deny.{kind[:LONGEST_SHOWN]}[{place}]"
            if term.casefold() in allowed:
                yield field, "is also in allow.terms; keep one of the two"
            elif any(re.fullmatch(pattern, term) for pattern in policy.allow_patterns):
                yield (field, "has no effect: one of allow.patterns matches it; narrow that pattern or remove the name")
            elif term.casefold() in seen:
                yield field, f"is also in {seen[term.casefold()]}; keep one of the two"
            seen.setdefault(term.casefold(), field)
    filled = {
        "codes": [kind for kind, values in file.codes.items() if values],
        "deny": [kind for kind, values in file.deny.items() if values],
    }
    for table, kinds in filled.items():
        for kind in kinds:
            if policy.keeps(kind):
                yield (
                    f"{table}.{kind[:LONGEST_SHOWN]}",
                    f"has no effect: {kind[:LONGEST_SHOWN]} is kept; give the type another action",
                )
