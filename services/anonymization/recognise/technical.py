"""Telling technical text (manuals, logs, code, commands) from prose, because its capitalised words name programs and not people."""

import re

# What prose does not have: options, paths, variables, identifiers, calls, assignments, prompts of a shell.
SIGNS = (
    r"(?<!\S)--?[a-zA-Z][\w-]*"
    r"|(?<!\w)[~.]{0,2}/(?:[\w.+-]+/)+[\w.+-]*"
    r"|\$\{?\w+|<[a-z][\w-]*>|\b\w+\(\d?\w?\)"
    r"|\b\w+_\w+\b"
    r"|\b\w+\.(?:c|h|cc|py|js|ts|go|rs|java|sh|conf|cfg|toml|ya?ml|json|xml|so|dll|exe|log|txt|gz|service)\b"
    r"|`[^`\n]+`|^```|==|!=|&&|\|\||=>|->|::|\b0x[0-9a-f]+\b|\bCVE-\d{4}-\d+\b"
)
FIRM_MARKS = re.compile(SIGNS, re.MULTILINE)
# With names like `BioNTech`, and with versions, which may be dates and phone numbers.
MARKS = re.compile(rf"{SIGNS}|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z]+[A-Z]\w*\b|\bv?\d+\.\d+\.\d+\b", re.MULTILINE)
WORD = re.compile(r"[^\W\d_]{2,}")
SECTION = re.compile(
    r"(?m)^(?:NAME|SYNOPSIS|DESCRIPTION|OPTIONS|SEE ALSO|EXIT STATUS|ENVIRONMENT|FILES|NOTES|EXAMPLES?|BUGS|DIAGNOSTICS|COMMANDS)[ \t]*$"
)
# Words of manuals for programs. A guide without code has them in one word of fifteen, a business text in one of a hundred.
SOFTWARE = re.compile(
    r"\b(?:click(?:ed|ing)?|menus?|dialogs?|buttons?|toolbars?|check ?box(?:es)?|plug-?ins?|servers?|daemons?|kernels?|software|packages?"
    r"|install(?:ed|er|ing|ation)?|configur\w+|commands?|director(?:y|ies)|file ?names?|files?|parameters?|arguments?|syntax|defaults?"
    r"|databases?|modules?|compil\w+|runtime|screenshots?|shortcuts?|keyboard|mouse|cursor|browsers?|scripts?|interfaces?|pixels?|layers?"
    r"|windows?|tabs?|options?|protocols?|hosts?|ports?|quer(?:y|ies)|tables?|columns?|strings?|objects?|functions?|variables?|bytes?|bits?"
    r"|memory|threads?|sockets?|attributes?|elements?|tags?)\b",
    re.IGNORECASE,
)
LEAST_WORDS, LEAST_SOFTWARE, FULL_SOFTWARE = 150, 0.035, 0.06
# A manual has about one mark in ten words, a letter one in a hundred.
FULL_DENSITY = 0.08
MOST_CHARS = 200_000


def technicality(text: str, marks: re.Pattern[str] = MARKS) -> float:
    """How technical a text is, from 0 (prose) to 1 (a manual, a log, a pipeline)."""
    sample = text[:MOST_CHARS]
    words = len(WORD.findall(sample))
    if words == 0:
        return 0.0
    if len(SECTION.findall(sample)) >= 3:
        return 1.0
    return min(1.0, max(len(marks.findall(sample)) / words / FULL_DENSITY, _about_software(sample, words)))


def _about_software(sample: str, words: int) -> float:
    """How sure the words of a longer text tell that it is a manual, from 0 to 1."""
    share = len(SOFTWARE.findall(sample)) / words if words >= LEAST_WORDS else 0.0
    return max(0.0, min(1.0, (share - LEAST_SOFTWARE) / (FULL_SOFTWARE - LEAST_SOFTWARE)))
