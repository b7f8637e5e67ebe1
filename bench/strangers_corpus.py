"""The documents of `make strangers`: Debian's documentation packages, or manuals made here where apt is not at hand."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tailor.cli.submissions import Description, FileSubmission, collect
from tests.manuals import MAX_PART_CHARS, WRITERS, Manual, write_manuals

MADE_DOCUMENTS = 240


@dataclass(frozen=True)
class Share:
    """Documents of one package: those that match the pattern, at most `most` of them, drawn by a fixed hash."""

    package: str
    pattern: str
    most: int
    department: str


# HTML by DocBook, Sphinx and AsciiDoc, text, reStructuredText, PDF with contents, in English and German, and mails.
SHARES = (
    Share("postgresql-doc-15", "**/*.html", 60, "engineering"),
    Share("git-doc", "**/*.txt", 20, "engineering"),
    Share("debian-policy", "**/*.html", 20, "it"),
    Share("debian-policy", "**/*.txt", 10, "it"),
    Share("sphinx-doc", "**/_sources/**/*.rst.txt", 20, "documentation"),
    Share("developers-reference-de", "**/*.html", 12, "it"),
    Share("debian-faq-de", "**/*.html", 16, "support"),
    Share("debian-reference-de", "**/*.html", 12, "support"),
    Share("debian-reference-en", "**/*.pdf", 1, "support"),
    Share("maint-guide-de", "**/*.pdf", 1, "documentation"),
    Share("bash-doc", "**/*.pdf", 2, "engineering"),
    Share("apt-doc", "**/*.html", 20, "it"),
    Share("libpython3.11-testsuite", "**/test_email/data/msg_*.txt", 20, "support"),
)
# Pages of this package also become office files, which no package has.
OFFICE, OFFICE_FILES = "debian-policy", 24
# Of reStructuredText: in an office file it would stand within paragraphs and cells, as in no company's.
MARKUP = re.compile(r"(?m)^[^\w\s]{3,}[ \t]*$|^[ \t]*\.\. .*$|:[a-z]+:(?=`)|`+")


def prepare(folder: Path, *, made: bool) -> list[FileSubmission]:
    """The documents with their labels. Fetches packages unless `made`, or if there is no apt. Blocks."""
    shutil.rmtree(folder, ignore_errors=True)
    if made or shutil.which("apt-get") is None or not _fetch_all(folder / "packages"):
        return _made(folder)
    return [*_choose_all(folder), *_office(folder)]


def _made(folder: Path) -> list[FileSubmission]:
    paths = write_manuals(folder / "made", MADE_DOCUMENTS)
    departments = ("engineering", "it", "support")
    return [
        item
        for number, path in enumerate(paths)
        for item in collect([path], _label("modules", departments[number % len(departments)]))
    ]


def _fetch_all(folder: Path) -> bool:
    """Unpack every package below the folder; nothing is installed. False if one cannot be fetched."""
    folder.mkdir(parents=True)
    for package in sorted({share.package for share in SHARES}):
        fetched = subprocess.run(["apt-get", "download", "-qq", package], check=False, cwd=folder, capture_output=True)
        archives = sorted(folder.glob(f"{package}_*.deb"))
        if fetched.returncode or not archives:
            return False
        subprocess.run(["dpkg", "-x", str(archives[0]), str(folder / package)], check=True)
    return True


def _choose_all(folder: Path) -> Iterator[FileSubmission]:
    for number, share in enumerate(SHARES):
        target = folder / "documents" / f"{number:02}-{share.package}"
        target.mkdir(parents=True)
        for path in _choose(folder / "packages" / share.package, share):
            name = path.name.removesuffix(".txt") if path.name.endswith(".rst.txt") else path.name
            # The ending says that it is a mail.
            name = f"{path.stem}.eml" if "test_email" in path.parts else name
            shutil.copyfile(path, target / f"{_digest(path)[:6]}-{name}")
        yield from collect([target], _label(share.package.replace(".", "-"), share.department))


def _choose(root: Path, share: Share) -> list[Path]:
    files = [path for path in sorted(root.glob(share.pattern)) if path.is_file() and not path.is_symlink()]
    return sorted(sorted(files, key=_digest)[: share.most])


def _digest(path: Path) -> str:
    """By the place in the package, which is the same on every machine."""
    return hashlib.sha256("/".join(path.parts[path.parts.index("packages") :]).encode()).hexdigest()


def _office(folder: Path) -> Iterator[FileSubmission]:
    """Office files of the text of policy pages: a company has such files, and no package does."""
    target = folder / "documents" / "office"
    target.mkdir()
    texts = sorted((folder / "packages" / OFFICE).glob("**/*.txt"), key=_digest)[:OFFICE_FILES]
    kinds = ("docx", "xlsx", "pptx")
    for number, path in enumerate(texts):
        kind = kinds[number % len(kinds)]
        text = MARKUP.sub("", path.read_text(encoding="utf-8", errors="replace"))
        parts = [part for part in text.split("\n\n\n") if part.strip()]
        named = tuple((part.strip().split("\n")[0][:80], dedent(part)[:MAX_PART_CHARS]) for part in parts[:20])
        (target / f"{path.stem}.{kind}").write_bytes(WRITERS[kind](Manual(path.stem, named)))
    yield from collect([target], _label("office", "management"))


def _label(source: str, department: str) -> Description:
    return Description(source=source, department=department, confidentiality="internal")
