"""Find phrases that make the prose hard to read: `python -m deploy.english [PATH ...]`.

Checks docstrings, comments and string literals of Python, comments of protos, and the text of Markdown, TOML, YAML and
HTML. Prints each finding with a hint, then the count per file; exits with 1 if there are any.

A line keeps a phrase with the comment `# english: allow PHRASE` on it or on the line above, in Markdown
`<!-- english: allow PHRASE -->`. Several phrases are separated by commas. An allowance that allows nothing is a finding.
"""

import argparse
import bisect
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

EXCLUDED = ("tailor/api/", "deploy/sample/", "docs/decisions/", "docs/benchmarks", "docs/asyncapi.yaml", "CHANGELOG")

_UNIT = (
    "tokens?|requests?|rows?|documents?|calls?|bytes|steps?|messages?|[KMG]i?B|seconds?|minutes?|nats?|characters?|pairs"
    "|events?|answers?|dollars?|prompts?"
)
_PER = "second|minute|hour|token|row|step|document|request|call|device|GPU|key|specialist"

# (pattern, hint). Patterns see one paragraph, with every run of white space as one space.
PHRASES = (
    (r"(?<!leave it )(?<!leaves it )(?<!leave them )(?<!leaves them )\balone\b(?=\s*(?:[.,;:)]|\Z))", "only"),
    (r"\b(?:None|True|False|0|empty|nothing|\w+Error|Unavailable|NotFound|InvalidArgument) where\b", "if"),
    (
        r"\bwhere (?:there (?:is|are) (?:no|none|not)|nothing|nobody|no |none|it (?:is not|has|does|can|may)"
        r"|they (?:are|have|do)|one (?:is|has))\b",
        "if, when",
    ),
    (r"\bso many\b", "a number, n"),
    (r"\bby how much\b", "the difference"),
    (
        r"(?<!there )(?<!that )\b(?:is|are) (?:no (?!longer\b|more\b|less\b|better\b)|(?-i:none)\b)",
        "is not a, does not have",
    ),
    (r"\b(?:has|have) not (?:an?|the|any|enough|one|\d+)\b", "does not have"),
    (r"\btold\b(?! (?:to|apart)\b)", "reported, published, described"),
    (r"\b(?:is|are|was|be|as) said\b", "reported, described"),
    (
        r"\bstat(?:ed|ing)\b|\b(?:to|must|never|not) state\b|\bstates (?:an?|the|its?|that|what)\b",
        "published, reported, described",
    ),
    (r"\bchanges nothing\b", "has no effect"),
    (r"\bwhatever\b|\bwhat comes\b", "anything, any other"),
    (
        r"(?:^|(?<=[.!] ))What(?= (?:an?|every|each|no|nobody|comes|stands|cannot|may|must)\b(?![^.]*\?))",
        "start with the thing: fields, names, ...",
    ),
    (r"\bwho has no\b|\bto who\b", "without"),
    (r"\bwhoever\b", "the reader, the caller, anyone who"),
    (r"\bbeside\b", "compared with, next to, along with"),
    (rf"\b(?:{_UNIT}) an? (?:{_PER})\b", "per"),
    (r"\banew\b", "again"),
    (r"\bover and over\b", "repeatedly"),
    (r"\blook(?:s|ing|ed)? after\b", "monitor"),
    (r"\bkeep(?:s|ing)? going\b|\bkept going\b", "continue"),
    (r"\blives? on\b(?=[.,;:)])", "continues"),
    (r"\bnothing (?:is|was|of it is) (?:kept|held)\b", "it is not stored"),
    (r"\bof its own\b", "its own X, or nothing"),
    (r"\b(?:every|each|next|per|one|another) look\b(?! at)", "poll, check"),
    (r"\btaken for\b(?! granted)", "mistaken for, treated as"),
    (r"\b(?:falls?|fell|fallen) free\b", "becomes free"),
    (r"\bg(?:ives?|ave|iven) way\b", "yields, pauses"),
)
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), hint) for pattern, hint in PHRASES)
_ALLOW = re.compile(r"(?:#|//|<!--|\{#) english: allow ([a-z][^\n>#}]*?)\s*(?:-->|#\}|\*/|$)", re.MULTILINE)
_ALLOWANCE = re.compile(r"english: allow [a-z].*")
_NEW_PARAGRAPH = re.compile(r"\s*(?:[-*+|>]|\d+\.|#+)\s")
_OPENING = re.compile(r"""[a-zA-Z]*(\"{3}|'{3}|"|')""")
_BRACES = re.compile(r"\{[^{}\n]*\}")
_CODE = re.compile(r"`[^`\n]*`")
_PLACEHOLDER = "x"

Line = tuple[int, str]  # number, text


@dataclass(frozen=True)
class ListedPhrase:
    path: Path
    line: int
    phrase: str
    hint: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r} -> {self.hint}"


@dataclass(frozen=True)
class Paragraph:
    """Words of one paragraph, and the line of each."""

    words: tuple[str, ...]
    lines: tuple[int, ...]

    def findings(self, path: Path) -> Iterator[ListedPhrase]:
        text = " ".join(self.words)
        starts = []
        position = 0
        for word in self.words:
            starts.append(position)
            position += len(word) + 1
        for pattern, hint in _PATTERNS:
            for match in pattern.finditer(text):
                line = self.lines[bisect.bisect_right(starts, match.start()) - 1]
                yield ListedPhrase(path, line, match.group().strip(), hint)


def paragraphs(lines: list[Line]) -> Iterator[Paragraph]:
    """Split at blank lines, list items, headings and table rows."""
    words: list[str] = []
    numbers: list[int] = []
    for number, raw in [*lines, (0, "")]:
        line = _ALLOWANCE.sub("", raw)
        if words and (not line.strip() or _NEW_PARAGRAPH.match(line)):
            yield Paragraph(tuple(words), tuple(numbers))
            words, numbers = [], []
        heading = line.lstrip().startswith("#")
        added = line.split()[1:] if heading else line.split()
        words += added
        numbers += [number] * len(added)


def _python(text: str) -> Iterator[list[Line]]:
    """Comments, and literals with a space in them; adjacent ones are joined."""
    block: list[Line] = []
    kind = 0
    literals = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    layout = {
        tokenize.NL,
        getattr(tokenize, "FSTRING_START", tokenize.NL),
        getattr(tokenize, "FSTRING_END", tokenize.NL),
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in layout or (token.type == tokenize.NEWLINE and kind == tokenize.COMMENT):
            continue
        category = tokenize.STRING if token.type in literals else token.type
        joins = category == kind and (
            category == tokenize.STRING or (bool(block) and token.start[0] == block[-1][0] + 1)
        )
        if not joins:
            yield block
            block, kind = [], category
        if category == tokenize.COMMENT:
            block.append((token.start[0], token.string.lstrip("#!")))
        elif category == tokenize.STRING:
            block += _literal(token)
    yield block


def _literal(token: tokenize.TokenInfo) -> list[Line]:
    opening = _OPENING.match(token.string)
    if token.type != tokenize.STRING or opening is None:
        body = token.string
    else:
        body = token.string[opening.end() : -len(opening[1])]
        if "f" in opening.group().lower():
            body = _BRACES.sub(_PLACEHOLDER, body)
    if " " not in body:
        return []
    return [(token.start[0] + index, line) for index, line in enumerate(_CODE.sub(_PLACEHOLDER, body).split("\n"))]


def _proto(text: str) -> Iterator[list[Line]]:
    block: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        code, slashes, comment = line.partition("//")
        if not slashes or code.strip():
            yield block
            block = []
        if slashes:
            block.append((number, comment))
    yield block


def _markdown(text: str) -> Iterator[list[Line]]:
    block: list[Line] = []
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        block.append((number, "" if fence or fenced else _CODE.sub(_PLACEHOLDER, line)))
    yield block


def _html(text: str) -> Iterator[list[Line]]:
    """Text and attributes, without scripts, styles and template expressions."""

    def blank(match: re.Match[str]) -> str:
        return _PLACEHOLDER + "\n" * match.group().count("\n")

    text = re.sub(r"<(script|style)\b.*?</\1>|\{\{.*?\}\}|\{%.*?%\}", blank, text, flags=re.DOTALL)
    yield list(enumerate(text.splitlines(), 1))


def _settings(text: str) -> Iterator[list[Line]]:
    """Comments of TOML and YAML, and lines with a value of several words."""
    block: list[Line] = []
    for number, line in enumerate(text.splitlines(), 1):
        code, mark, comment = line.partition("#")
        if code.strip() or not mark:
            yield block
            block = []
            yield [(number, code.partition("=")[2] or code.partition(": ")[2] or code)]
        block.append((number, comment))
    yield block


_READERS = {".py": _python, ".proto": _proto, ".md": _markdown, ".html": _html, ".toml": _settings, ".yaml": _settings}


def check(path: Path, text: str) -> list[ListedPhrase]:
    """Return what is left after the allowances, and the allowances that allow nothing."""
    lines = text.splitlines()
    allowed: dict[tuple[int, str], bool] = {}
    for number, line in enumerate(lines, 1):
        for match in _ALLOW.finditer(line):
            allowed |= {(number, phrase.strip().casefold()): False for phrase in match[1].split(",")}
    findings = []
    for block in _READERS[path.suffix](text):
        for paragraph in paragraphs(block):
            for finding in paragraph.findings(path):
                keys = [(line, finding.phrase.casefold()) for line in (finding.line, finding.line - 1)]
                used = [key for key in keys if key in allowed]
                allowed |= dict.fromkeys(used, True)
                if not used:
                    findings.append(finding)
    findings += [
        ListedPhrase(path, line, phrase, "allowed here, but not found")
        for (line, phrase), used in allowed.items()
        if not used
    ]
    return sorted(set(findings), key=lambda finding: (finding.line, finding.phrase))


def tracked_files(paths: list[str]) -> list[Path]:
    """Files among `paths`, and those that git knows under its folders (under the working directory if `paths` is empty)."""
    files = {Path(path) for path in paths if Path(path).is_file()}
    folders = [path for path in paths if Path(path) not in files]
    if folders or not paths:
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        files |= {Path(path) for path in listed if not path.startswith(EXCLUDED) and Path(path).is_file()}
    return sorted(path for path in files if path.suffix in _READERS)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.english", description="Find phrases that make the prose hard to read."
    )
    parser.add_argument("paths", nargs="*", help="files and folders; all tracked files by default")
    paths = tracked_files(parser.parse_args(arguments).paths)
    findings = [finding for path in paths for finding in check(path, path.read_text(encoding="utf-8"))]
    for finding in findings:
        print(finding)
    counts = Counter(finding.path for finding in findings)
    for path, count in counts.most_common():
        print(f"{count:5}  {path}")
    print(f"{len(findings)} phrases in {len(counts)} of {len(paths)} files")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
