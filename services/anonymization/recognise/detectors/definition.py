"""Which detectors an installation uses: their kinds, languages, labels and thresholds, read from a TOML file."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tailor.errors import InvalidArgument, Reason

DEFAULT = Path(__file__).with_name("default.toml")
MAX_DETECTORS = 20
Score = Annotated[float, Field(ge=0, le=1)]
TypeName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,39}$")]
LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2}$")]


class DetectorKind(StrEnum):
    """How a detector works."""

    RULES = "rules"
    SPACY = "spacy"
    PRESIDIO = "presidio"
    TRANSFORMERS = "transformers"
    GLINER = "gliner"
    REMOTE = "remote"


# Kinds that load a model by name.
WITH_MODEL = (DetectorKind.SPACY, DetectorKind.TRANSFORMERS, DetectorKind.GLINER)
NEED_TORCH = (DetectorKind.TRANSFORMERS, DetectorKind.GLINER)


@dataclass(frozen=True)
class Detector:
    """One detector. Without `languages` it reads every language; labels that are not in `labels` are ignored.

    `scores` are for detectors that give none. A finding below its type's threshold does not count, but it is reported as a disagreement.
    """

    name: str
    kind: DetectorKind
    languages: tuple[str, ...] = ()
    model: str = ""
    sha256: str = ""
    address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    default_threshold: float = 0.3

    def reads(self, language: str) -> bool:
        """True if the detector reads texts of this language."""
        return not self.languages or language in self.languages

    def knows(self, entity_type: str) -> bool:
        """True if the detector can find values of this type."""
        return self.kind is DetectorKind.RULES or entity_type in self.labels.values()

    def threshold(self, entity_type: str) -> float:
        """The least score at which a finding counts."""
        return self.thresholds.get(entity_type, self.default_threshold)


class DetectorTable(BaseModel):
    """One `[[detectors]]` table. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    kind: DetectorKind
    languages: tuple[LanguageCode, ...] = ()
    model: Annotated[str, Field(max_length=200)] = ""
    sha256: Annotated[str, Field(pattern=r"^(?:[0-9a-f]{64})?$")] = ""
    address: Annotated[str, Field(max_length=200)] = ""
    labels: Annotated[dict[str, TypeName], Field(max_length=200)] = {}
    scores: dict[TypeName, Score] = {}
    thresholds: dict[TypeName, Score] = {}
    default_threshold: Score = 0.3

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> "DetectorTable":
        if self.kind in WITH_MODEL and not self.model:
            raise ValueError(f"needs `model`, the name of the {self.kind} model")
        if self.kind is DetectorKind.SPACY and len(self.languages) != 1:
            raise ValueError("needs exactly one language, because a spaCy model reads one")
        if self.kind is DetectorKind.REMOTE and not self.address:
            raise ValueError(
                "needs `address`, host and port of a server of tailor.api.anonymization.v1.DetectorService"
            )
        if self.kind is not DetectorKind.RULES and not self.labels:
            raise ValueError("needs `labels`, the type of personal value for each of its labels")
        return self


class DetectorsFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detectors: Annotated[tuple[DetectorTable, ...], Field(min_length=1, max_length=MAX_DETECTORS)]

    @model_validator(mode="after")
    def _is_consistent(self) -> "DetectorsFile":
        names = [table.name for table in self.detectors]
        if len(set(names)) < len(names):
            raise ValueError("two detectors have the same name")
        if not any(table.kind is DetectorKind.RULES and not table.languages for table in self.detectors):
            raise ValueError("one detector of kind `rules` must read every language")
        return self


def load_detectors(path: Path = DEFAULT) -> tuple[Detector, ...]:
    """Read a detectors file. Raises InvalidArgument (INVALID_DETECTORS) with a violation for every wrong field."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise InvalidArgument(
            Reason.INVALID_DETECTORS, "TAILOR_DETECTORS_FILE must name a readable TOML file."
        ) from None
    return parse_detectors(content)


def parse_detectors(content: Mapping[str, Any]) -> tuple[Detector, ...]:
    """The detectors in a decoded file. Raises InvalidArgument (INVALID_DETECTORS) with a violation for every wrong field."""
    try:
        tables = DetectorsFile.model_validate(content).detectors
    except ValidationError as error:
        problems = {
            ".".join(map(str, problem["loc"])) or "detectors": problem["msg"].removeprefix("Value error, ")
            for problem in error.errors(include_url=False)
        }
        message = "The detectors file is invalid and was not applied."
        raise InvalidArgument(Reason.INVALID_DETECTORS, message, field_violations=problems) from None
    return tuple(Detector(**dict(table)) for table in tables)
