"""Names of hosts in a text, such as `www.example.org`."""

import re
from collections.abc import Iterator

# Domains of files and programs are left out: `setup.py`, `README.md`.
TOP_LEVEL = (
    "com|org|net|edu|gov|mil|int|info|biz|io|dev|app|cloud|ai|eu|uk|de|fr|es|it|nl|pl|pt|at|ch|be|ie|us|ca|au|nz|se|no|dk|fi|cz|jp|cn|in"
    "|br|ru|lu|internal|intranet|corp|lan|local|home|example|test|invalid"
)
HOST = re.compile(rf"(?<![\w@.-])(?:[a-zA-Z0-9-]{{1,63}}\.){{1,8}}(?:{TOP_LEVEL})(?![\w-]|\.\w)", re.IGNORECASE)


def is_host(value: str) -> bool:
    """True for `debian.org`."""
    return HOST.fullmatch(value) is not None


def find_hosts(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Each host: its place, and its labels in small letters without the last one and without hyphens."""
    for match in HOST.finditer(text):
        labels = match[0].lower().split(".")[:-1]
        yield match.start(), match.end(), tuple(part for label in labels for part in (label, *label.split("-")))
