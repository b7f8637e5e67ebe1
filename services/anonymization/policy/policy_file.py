"""Reading a policy file, and reporting everything that is wrong with it."""

import hashlib
import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.anonymization.domain import ENTITY_TYPES, Action, Coarseness, Policy, Rule
from tailor.errors import InvalidArgument, Reason

DEFAULT = Path(__file__).with_name("default.toml")
GENERALISED = ("DATE_TIME", "DATE_OF_BIRTH", "ADDRESS", "MONEY", "AGE")
# Types without believable stand-ins.
NOT_DRAWN = ("DATE_TIME", "LOCATION", "NRP", "MONEY", "AGE")
OWN_TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
LONGEST_SHOWN = 40


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error.msg} at character {error.pos}") from None
    if compiled.match("") is not None:
        raise ValueError("matches the empty text; it must match at least one character")
    return value


def _bands(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or value[0] <= 0 or any(upper <= lower for lower, upper in pairwise(value)):
        raise ValueError("must be whole amounts above 0 in ascending order, such as [1000, 10000]")
    return value


RegularExpression = Annotated[str, AfterValidator(_pattern)]
Term = Annotated[str, Field(min_length=2, max_length=200)]
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
    AGE: Annotated[int, Field(ge=2, le=50)] = Coarseness.age_years


class AllowTable(PolicyTable):
    """Texts that are never personal."""

    terms: tuple[Term, ...] = ()
    patterns: tuple[RegularExpression, ...] = ()


class PolicyFile(PolicyTable):
    """The whole file."""

    types: dict[str, Action]
    rules: tuple[RuleTable, ...] = ()
    generalise: GeneraliseTable = GeneraliseTable()
    codes: dict[str, tuple[RegularExpression, ...]] = {}
    deny: dict[str, tuple[Term, ...]] = {}
    allow: AllowTable = AllowTable()

    def to_policy(self, digest: str) -> Policy:
        coarse = self.generalise
        return Policy(
            digest=digest,
            actions=self.types,
            codes=self.codes,
            deny=self.deny,
            allow_terms=self.allow.terms,
            allow_patterns=self.allow.patterns,
            rules=tuple(table.to_rule() for table in self.rules),
            coarseness=Coarseness(coarse.DATE_TIME, coarse.DATE_OF_BIRTH, coarse.ADDRESS, coarse.MONEY, coarse.AGE),
        )


def load_policy(path: Path = DEFAULT) -> Policy:
    """Read a policy from a TOML file. Raises InvalidArgument (INVALID_POLICY) if the file cannot be read, and like `parse_policy`."""
    try:
        data = path.read_bytes()
    except OSError:
        raise InvalidArgument(Reason.INVALID_POLICY, "TAILOR_POLICY_FILE must name a readable TOML file.") from None
    return parse_policy(data)


def parse_policy(data: bytes) -> Policy:
    """Read a policy in TOML. Raises InvalidArgument (INVALID_POLICY) with a violation for every wrong field, saying what would be right."""
    try:
        content = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        raise _rejection({"policy": f"is not TOML: {error}"}) from None
    except UnicodeDecodeError:
        raise _rejection({"policy": "is not UTF-8"}) from None
    try:
        file = PolicyFile.model_validate(content)
    except ValidationError as error:
        raise _rejection(_violations(content, error)) from None
    problems = dict(_problems(file))
    if problems:
        raise _rejection(problems)
    return file.to_policy(hashlib.sha256(data).hexdigest())


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
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_SHOWN]}" for part in error["loc"])
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
    for table, types in [("codes", file.codes), ("deny", file.deny)]:
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
        elif action is Action.SURROGATE and kind in NOT_DRAWN:
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
    allowed = {term.casefold() for term in file.allow.terms}
    seen: dict[str, str] = {}
    for kind, terms in file.deny.items():
        for place, term in enumerate(terms):
            field = f"deny.{kind[:LONGEST_SHOWN]}[{place}]"
            if term.casefold() in allowed:
                yield field, "is also in allow.terms; keep one of the two"
            elif any(re.fullmatch(pattern, term) for pattern in file.allow.patterns):
                yield (
                    field,
                    "has no effect: one of allow.patterns matches it; narrow that pattern or remove the name",
                )
            elif term.casefold() in seen:
                yield field, f"is also in {seen[term.casefold()]}; keep one of the two"
            seen.setdefault(term.casefold(), field)
    for table, entries in [("codes", file.codes), ("deny", file.deny)]:
        for kind, values in entries.items():
            if values and policy.keeps(kind):
                yield (
                    f"{table}.{kind[:LONGEST_SHOWN]}",
                    f"has no effect: {kind[:LONGEST_SHOWN]} is kept; give the type another action",
                )
