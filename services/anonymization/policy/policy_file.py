"""Reading a policy, and saying everything that is wrong with one."""

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
# Types of which no believable stand-in is drawn.
NOT_DRAWN = ("DATE_TIME", "LOCATION", "NRP", "MONEY", "AGE")
OWN_TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
LONGEST_SHOWN = 40


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error.msg} at character {error.pos}") from None
    if compiled.match("") is not None:
        raise ValueError("matches the empty text; let it match one character or more")
    return value


def _bands(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or value[0] <= 0 or any(upper <= lower for lower, upper in pairwise(value)):
        raise ValueError("must be whole amounts above 0, each greater than the one before, such as [1000, 10000]")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Term = Annotated[str, Field(min_length=2, max_length=200)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Slugs = Annotated[
    frozenset[Slug], BeforeValidator(lambda value: [value] if isinstance(value, str) else value), Field(min_length=1)
]


class Part(BaseModel):
    """A table of the file; a field that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelsPart(Part):
    """Which documents a rule is for."""

    source: Slugs | None = None
    department: Slugs | None = None
    confidentiality: Slugs | None = None


class RulePart(Part):
    """Actions that override the default table for some documents."""

    labels: LabelsPart
    types: dict[str, Action]

    def rule(self) -> Rule:
        """The rule as the domain knows it."""
        return Rule({name: values for name, values in self.labels if values is not None}, self.types)


class GeneralisePart(Part):
    """How far `generalise` goes."""

    DATE_TIME: Literal["month", "year"] = "month"
    DATE_OF_BIRTH: Literal["month", "year"] = "year"
    ADDRESS: Literal["town", "postcode-area"] = "town"
    MONEY: Annotated[tuple[int, ...], AfterValidator(_bands)] = Coarseness.money_bands
    AGE: Annotated[int, Field(ge=2, le=50)] = Coarseness.age_years


class AllowPart(Part):
    """What is never personal."""

    terms: tuple[Term, ...] = ()
    patterns: tuple[Pattern, ...] = ()


class PolicyFile(Part):
    """The whole file."""

    types: dict[str, Action]
    rules: tuple[RulePart, ...] = ()
    generalise: GeneralisePart = GeneralisePart()
    codes: dict[str, tuple[Pattern, ...]] = {}
    deny: dict[str, tuple[Term, ...]] = {}
    allow: AllowPart = AllowPart()

    def policy(self, digest: str) -> Policy:
        """The policy as the domain knows it."""
        coarse = self.generalise
        return Policy(
            digest=digest,
            actions=self.types,
            codes=self.codes,
            deny=self.deny,
            allow_terms=self.allow.terms,
            allow_patterns=self.allow.patterns,
            rules=tuple(part.rule() for part in self.rules),
            coarseness=Coarseness(coarse.DATE_TIME, coarse.DATE_OF_BIRTH, coarse.ADDRESS, coarse.MONEY, coarse.AGE),
        )


def load_policy(path: Path = DEFAULT) -> Policy:
    """The policy in a TOML file; InvalidArgument (INVALID_POLICY) where it cannot be read, or names every wrong field."""
    try:
        data = path.read_bytes()
    except OSError:
        raise InvalidArgument(Reason.INVALID_POLICY, "TAILOR_POLICY_FILE must name a readable TOML file.") from None
    return parse_policy(data)


def parse_policy(data: bytes) -> Policy:
    """The policy in TOML; InvalidArgument (INVALID_POLICY) names every wrong field, with the reason and what would be right."""
    try:
        content = tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as error:
        raise _refusal({"policy": f"is not TOML: {error}"}) from None
    except UnicodeDecodeError:
        raise _refusal({"policy": "is not UTF-8"}) from None
    try:
        file = PolicyFile.model_validate(content)
    except ValidationError as error:
        raise _refusal(_violations(content, error)) from None
    problems = dict(_problems(file))
    if problems:
        raise _refusal(problems)
    return file.policy(hashlib.sha256(data).hexdigest())


def _refusal(problems: dict[str, str]) -> InvalidArgument:
    return InvalidArgument(
        Reason.INVALID_POLICY, "The policy is wrong; nothing of it applies.", field_violations=problems
    )


def _violations(content: dict[str, Any], error: ValidationError) -> dict[str, str]:
    """What is malformed, and what else is wrong with the rest of the file."""
    malformed = error.errors(include_url=False, include_input=False)
    found = dict(_violation(each) for each in malformed)
    rest = dict(content)
    for table in {each["loc"][0] for each in malformed}:
        entries = rest.pop(str(table), None)
        if table in ("types", "codes", "deny") and isinstance(entries, dict):
            wrong = {each["loc"][1] for each in malformed if each["loc"][0] == table and len(each["loc"]) > 1}
            # An entry that is left empty still says that there is such a type.
            rest[str(table)] = {
                kind: [] if kind in wrong else entry
                for kind, entry in entries.items()
                if table != "types" or kind not in wrong
            }
    try:
        others = dict(_problems(PolicyFile.model_validate(rest)))
    except ValidationError:
        return found
    return others | found


def _violation(error: Any) -> tuple[str, str]:
    """A field and what is wrong with it. The value that stands there is not repeated: it may be somebody's name."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:LONGEST_SHOWN]}" for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            reason = f"is no field here; known are {', '.join(_known_fields(error['loc']))}"
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
    parts: dict[str, type[Part]] = {
        "rules": RulePart,
        "labels": LabelsPart,
        "generalise": GeneralisePart,
        "allow": AllowPart,
    }
    named = [part for part in place[:-1] if part in parts]
    return list(parts[named[-1]].model_fields if named else PolicyFile.model_fields)


def _problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """What is well-formed and yet wrong."""
    known = {*ENTITY_TYPES, *file.codes, *file.deny}
    for table, types in [("codes", file.codes), ("deny", file.deny)]:
        for kind in types:
            if not OWN_TYPE.fullmatch(kind):
                yield f"{table}.{kind[:LONGEST_SHOWN]}", "must be a type in capitals, such as CONTRACT_CODE"
    yield from _wrong_actions("types", file.types, known)
    for place, part in enumerate(file.rules):
        yield from _wrong_actions(f"rules[{place}].types", part.types, known)
    yield from _rule_problems(file)
    yield from _list_problems(file)


def _wrong_actions(place: str, actions: dict[str, Action], known: set[str]) -> Iterator[tuple[str, str]]:
    for kind, action in actions.items():
        field = f"{place}.{kind[:LONGEST_SHOWN]}"
        if kind not in known:
            yield field, f"is no type; known are {', '.join(sorted(known))}; one of your own needs an entry in [codes]"
        elif action is Action.GENERALISE and kind not in GENERALISED:
            yield field, f"cannot be generalised, only {', '.join(GENERALISED)} can; use surrogate, mask or keep"
        elif action is Action.SURROGATE and kind in NOT_DRAWN:
            others = "generalise, mask or keep" if kind in GENERALISED else "mask or keep"
            yield field, f"has no surrogates; use {others}"


def _rule_problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """Rules that can never decide, or that say two things of the same documents."""
    rules = [part.rule() for part in file.rules]
    for place, rule in enumerate(rules):
        if not rule.labels:
            yield (
                f"rules[{place}].labels",
                "names no label, so that the rule is for every document; write it in [types]",
            )
        if not rule.actions:
            yield f"rules[{place}].types", "names no type, so that the rule does nothing; name one or remove the rule"
        for kind, action in rule.actions.items():
            first = next((n for n in range(place) if kind in rules[n].actions and rules[n].covers(rule)), None)
            if first is None:
                continue
            field, other = f"rules[{place}].types.{kind[:LONGEST_SHOWN]}", rules[first].actions[kind]
            if rules[first].labels == rule.labels and other is not action:
                yield field, f"contradicts rules[{first}], which says {other} for the same labels; keep one of the two"
            else:
                yield (
                    field,
                    f"is never reached: rules[{first}] comes first for all its documents; move the narrower rule up",
                )


def _list_problems(file: PolicyFile) -> Iterator[tuple[str, str]]:
    """Entries of the lists that contradict each other or do nothing."""
    policy = file.policy("")
    allowed = {term.casefold() for term in file.allow.terms}
    seen: dict[str, str] = {}
    for kind, terms in file.deny.items():
        for place, term in enumerate(terms):
            field = f"deny.{kind[:LONGEST_SHOWN]}[{place}]"
            if term.casefold() in allowed:
                yield field, "stands in allow.terms too; keep one of the two"
            elif any(re.fullmatch(pattern, term) for pattern in file.allow.patterns):
                yield (
                    field,
                    "is never reached: one of allow.patterns matches it; narrow that pattern or remove the name",
                )
            elif term.casefold() in seen:
                yield field, f"stands in {seen[term.casefold()]} too; keep one of the two"
            seen.setdefault(term.casefold(), field)
    for table, entries in [("codes", file.codes), ("deny", file.deny)]:
        for kind, values in entries.items():
            if values and policy.keeps(kind):
                yield (
                    f"{table}.{kind[:LONGEST_SHOWN]}",
                    f"does nothing: {kind[:LONGEST_SHOWN]} is kept; give the type another action",
                )
