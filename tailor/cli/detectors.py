"""`tailor model add-detector`: a model of a hub as one more detector of personal values."""

import json
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.cli.hub_files import download_file, hub_address, open_url, status_of
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason, TailorError, Unavailable
from tailor.storage.folder_digest import digest_of

GLINER, TRANSFORMERS = "gliner", "transformers"
# What GLiNER is asked for, which reads any label, and the type of each.
GLINER_LABELS = {
    "person": "PERSON", "organization": "CLIENT", "address": "ADDRESS", "phone number": "PHONE_NUMBER", "email": "EMAIL_ADDRESS",
    "date of birth": "DATE_OF_BIRTH", "credit card number": "CREDIT_CARD", "iban": "IBAN", "bank account number": "ACCOUNT_NUMBER",
    "passport number": "NATIONAL_ID", "social security number": "NATIONAL_ID", "tax identification number": "NATIONAL_ID",
    "driver's license number": "NATIONAL_ID", "username": "USERNAME", "ip address": "IP_ADDRESS", "license plate number": "VEHICLE",
    "medical condition": "HEALTH",
}  # fmt: skip
# Labels of token classifiers without `B-`, small letters and signs.
KNOWN_LABELS = {
    "per": "PERSON", "person": "PERSON", "name": "PERSON", "givenname": "PERSON", "firstname": "PERSON", "middlename": "PERSON",
    "surname": "PERSON", "lastname": "PERSON", "privateperson": "PERSON",
    "org": "CLIENT", "organization": "CLIENT", "organisation": "CLIENT", "company": "CLIENT", "companyname": "CLIENT",
    "address": "ADDRESS", "street": "ADDRESS", "streetaddress": "ADDRESS", "buildingnum": "ADDRESS", "privateaddress": "ADDRESS",
    "zipcode": "POSTCODE", "postcode": "POSTCODE",
    "email": "EMAIL_ADDRESS", "emailaddress": "EMAIL_ADDRESS", "privateemail": "EMAIL_ADDRESS",
    "phone": "PHONE_NUMBER", "phonenumber": "PHONE_NUMBER", "telephonenum": "PHONE_NUMBER", "telephone": "PHONE_NUMBER",
    "dateofbirth": "DATE_OF_BIRTH", "dob": "DATE_OF_BIRTH",
    "iban": "IBAN", "accountnum": "ACCOUNT_NUMBER", "accountnumber": "ACCOUNT_NUMBER",
    "creditcard": "CREDIT_CARD", "creditcardnumber": "CREDIT_CARD",
    "ssn": "NATIONAL_ID", "socialnum": "NATIONAL_ID", "idcardnum": "NATIONAL_ID",
    "passport": "NATIONAL_ID", "passportnum": "NATIONAL_ID", "driverlicensenum": "NATIONAL_ID", "driverslicense": "NATIONAL_ID",
    "taxnum": "NATIONAL_ID", "username": "USERNAME", "password": "SECRET", "ip": "IP_ADDRESS", "ipaddress": "IP_ADDRESS",
}  # fmt: skip
TYPE = re.compile(r"[A-Z][A-Z0-9_]{1,39}")
# Terms that exclude companies, and those that say nothing: they must be accepted by name.
NON_COMMERCIAL = re.compile(r"(?:^|[^a-z])nc(?:[^a-z]|$)|non-?commercial|research|academic", re.IGNORECASE)
UNCLEAR = ("unknown", "other", "")


def must_be_accepted(licence: str) -> bool:
    """True for a licence that excludes commercial use, and for none that is known."""
    return licence in UNCLEAR or NON_COMMERCIAL.search(licence) is not None


def find_kind(folder: Path) -> str:
    """`gliner` or `transformers`, by the model's files. Raises InvalidArgument (INVALID_MODEL) for another kind of model."""
    if (folder / "gliner_config.json").is_file():
        return GLINER
    architectures = _config(folder).get("architectures")
    if isinstance(architectures, list) and any(str(name).endswith("ForTokenClassification") for name in architectures):
        return TRANSFORMERS
    raise InvalidArgument(
        Reason.INVALID_MODEL,
        "The model must be a GLiNER model or a token classifier (`...ForTokenClassification` in config.json).",
    )


def find_labels(folder: Path, kind: str, given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The types by the model's labels, and the labels without a type. `given` are `LABEL=TYPE`, which come first.

    Raises InvalidArgument (INVALID_DETECTORS) if one of them is malformed, or if no label has a type.
    """
    labels = dict(map(_parse, given))
    names = list(GLINER_LABELS) if kind == GLINER else _own_labels(folder)
    known = GLINER_LABELS if kind == GLINER else KNOWN_LABELS
    for name in names:
        key = name if kind == GLINER else re.sub(r"[^a-z]", "", name.lower())
        if key in known:
            labels.setdefault(name, known[key])
    unused = [name for name in names if name not in labels]
    if not labels:
        shown = ", ".join(unused[:20]) or "none"
        raise InvalidArgument(
            Reason.INVALID_DETECTORS,
            f"Name the type of at least one label by --label LABEL=TYPE. The model has: {shown}.",
        )
    return labels, unused


def table(name: str, kind: str, model: tuple[Path, str], labels: Mapping[str, str], languages: Sequence[str]) -> str:
    """The `[[detectors]]` table as TOML. `model` is a folder and its digest."""
    folder, digest = model
    lines = [
        "[[detectors]]",
        f"name = {json.dumps(name)}",
        f"kind = {json.dumps(kind)}",
        f"languages = {json.dumps(list(languages))}",
        f"model = {json.dumps(str(folder), ensure_ascii=False)}",
        f"sha256 = {json.dumps(digest)}",
        "default_threshold = 0.5",
        "[detectors.labels]",
        *(f"{json.dumps(label)} = {json.dumps(kind)}" for label, kind in labels.items()),
    ]
    return "\n".join(lines) + "\n"


def _parse(item: str) -> tuple[str, str]:
    label, mark, kind = item.partition("=")
    if not mark or not label.strip() or not TYPE.fullmatch(kind):
        raise InvalidArgument(Reason.INVALID_DETECTORS, "--label must be LABEL=TYPE, such as ORG=CLIENT.")
    return label.strip(), kind


def _own_labels(folder: Path) -> list[str]:
    """The labels in the configuration, without the marks of beginning and inside."""
    named = _config(folder).get("id2label")
    labels = named.values() if isinstance(named, dict) else ()
    return list(dict.fromkeys(re.sub(r"^[BIESLU]-", "", str(label)) for label in labels if str(label) != "O"))


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


NAME = re.compile(r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]{1,200}))?")
MAX_LISTING_BYTES = 8 << 20
COMMIT = re.compile(r"[0-9a-f]{40}")
# Files of a token classifier or GLiNER. Subfolders have other formats; code is never downloaded.
WANTED = re.compile(r"[\w.-]+\.(?:safetensors|json|txt|model)|README\.md|LICEN[CS]E(?:\.\w+)?")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class HubModel:
    """A model at one commit: its repository, commit, the licence in its card, and files with their sizes in bytes."""

    repo: str
    commit: str
    licence: str
    files: Mapping[str, int]

    @property
    def source(self) -> str:
        return f"hub:{self.repo}@{self.commit}"

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())


def find_model(source: str) -> HubModel:
    """Ask the hub for `hub:OWNER/NAME[@REVISION]`; without a revision, for the newest commit. Blocks.

    Raises InvalidArgument (INVALID_SOURCE, MODEL_IS_GATED, PICKLE_REFUSED), NotFound (UNKNOWN_MODEL), Unavailable (HUB_UNAVAILABLE).
    """
    match = NAME.fullmatch(source)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with @REVISION.")
    repo = match["repo"]
    revision = urllib.parse.quote(match["revision"] or "main", safe="")
    try:
        with open_url(f"{hub_address()}/api/models/{repo}/revision/{revision}?blobs=true") as response:
            listing = json.loads(response.read(MAX_LISTING_BYTES))
        model = _model(repo, listing)
    except (OSError, HTTPException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _to_error(error, source) from None
    if not any(name.endswith(".safetensors") for name in model.files):
        raise InvalidArgument(
            Reason.PICKLE_REFUSED,
            f"{source} has no weights as safetensors, only pickles, which can run code. Ask its author, or convert it in a sandbox.",
        )
    return model


def download(model: HubModel, folder: Path) -> None:
    """Download the model's files into an empty folder. Blocks. Raises Unavailable (HUB_UNAVAILABLE)."""
    try:
        for name in sorted(model.files):
            download_file(f"{hub_address()}/{model.repo}/resolve/{model.commit}/{name}", folder / name)
            if (folder / name).stat().st_size != model.files[name]:
                raise OSError(f"{name} is incomplete")
    except (OSError, HTTPException, ValueError) as error:
        raise _to_error(error, model.source) from None


def _model(repo: str, listing: Any) -> HubModel:
    commit = str(listing["sha"])
    if not COMMIT.fullmatch(commit):
        raise ValueError("no commit")
    named = {str(item["rfilename"]): int(item.get("size") or 0) for item in listing.get("siblings") or ()}
    files = {name: size for name, size in named.items() if WANTED.fullmatch(name) and not name.endswith(PICKLES)}
    return HubModel(repo, commit, _licence(listing), files)


def _licence(listing: Any) -> str:
    """The licence in the card, in small letters; `unknown` if there is none."""
    card = listing.get("cardData") or {}
    stated = card.get("license_name") if card.get("license") == "other" else card.get("license")
    names: Iterable[Any] = stated if isinstance(stated, list) else [stated]
    tags = (str(tag).removeprefix("license:") for tag in listing.get("tags") or () if str(tag).startswith("license:"))
    known = [str(name).lower() for name in names if name] or list(tags)
    return ", ".join(known)[:200] or UNKNOWN


def _to_error(error: Exception, source: str) -> TailorError:
    status = status_of(error)
    if status in (401, 403):
        return InvalidArgument(
            Reason.MODEL_IS_GATED,
            f"The hub does not give {source} to everybody. Accept its terms there and set HF_TOKEN.",
        )
    if status == 404:
        return NotFound(Reason.UNKNOWN_MODEL, f"The hub does not know {source}.")
    return Unavailable(
        Reason.HUB_UNAVAILABLE,
        f"The hub could not be read ({type(error).__name__}). Check the network and run the command again.",
    )


GIB = 2**30
COMMIT_SHOWN = 12


def add_detector(  # noqa: PLR0917 - options of a command
    session: CommandSession,
    source: Annotated[str, typer.Argument(help="`hub:OWNER/NAME[@REVISION]`; without a revision, the newest commit.")],
    folder: Annotated[Path, typer.Option(help="Where models are stored; anonymization must be able to read it.")],
    name: Annotated[str, typer.Option(help="The detector's name; by default that of the model.")] = "",
    language: Annotated[list[str] | None, typer.Option(help="A language that it reads; by default every one.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="LABEL=TYPE, the type of personal value of one of its labels.")
    ] = None,
    accept_licence: Annotated[str, typer.Option(help="The licence, if it excludes commercial use or is unknown.")] = "",
    max_gib: Annotated[float, typer.Option(min=0.001, max=100, help="The largest model in GiB.")] = 4.0,
) -> None:
    """Download a detector's model at one commit, check its licence, and write the table for the detectors file.

    The table has the SHA-256 of the files: anonymization starts with these files only. Pickles and code are not downloaded.
    """
    model = find_model(source)
    _check(model, accept_licence, max_gib)
    session.output.note(f"{model.source}, {model.size_bytes / 1e6:.0f} MB, licence {model.licence}")
    stored = _store(model, folder)
    kind = find_kind(stored)
    labels, unused = find_labels(stored, kind, label or ())
    called = name or model.repo.split("/")[1].lower().replace("_", "-").replace(".", "-")[:40].strip("-")
    digest = digest_of(stored)
    content = f"# {model.source}, licence: {model.licence}\n" + table(
        called, kind, (stored, digest), labels, language or ()
    )
    (stored.parent / f"{stored.name}.toml").write_text(content, encoding="utf-8")
    document = {
        "source": model.source,
        "licence": model.licence,
        "folder": str(stored),
        "sha256": digest,
        "labels": labels,
        "unused_labels": unused,
        "table": content,
    }
    ignored = f"\nWithout a type, and therefore ignored: {', '.join(unused)}" if unused else ""
    session.output.emit(document, f"{content}{ignored}\nAdd this table to the file that TAILOR_DETECTORS_FILE names.")


def _check(model: HubModel, accepted: str, max_gib: float) -> None:
    if model.size_bytes > max_gib * GIB:
        raise InvalidArgument(
            Reason.MODEL_TOO_LARGE,
            f"{model.source} has {model.size_bytes / GIB:.1f} GiB, over the limit of {max_gib:g} GiB. Raise --max-gib.",
        )
    if must_be_accepted(model.licence) and accepted.lower() != model.licence:
        raise FailedPrecondition(
            Reason.LICENCE_NOT_ACCEPTED,
            f"The licence of {model.source} is `{model.licence}`, which may exclude the use in a company. "
            f"Read it, then run the command with --accept-licence {model.licence!r}.",
        )


def _store(model: HubModel, folder: Path) -> Path:
    """Download into a folder of the commit, which appears when it is complete. Idempotent."""
    stored = folder.resolve() / f"{model.repo.replace('/', '--')}-{model.commit[:COMMIT_SHOWN]}"
    if stored.is_dir():
        return stored
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    try:
        download(model, scratch)
        scratch.chmod(0o755)
        scratch.replace(stored)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return stored
