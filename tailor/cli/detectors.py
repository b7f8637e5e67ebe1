"""`tailor model add-detector`: a model of a hub as one more detector of personal values."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tailor.cli.detector_tables import find_kind, find_labels, must_be_accepted, table
from tailor.cli.hub_models import HubModel, download, find_model
from tailor.cli.session import CommandSession
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.storage.folder_digest import digest_of

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
