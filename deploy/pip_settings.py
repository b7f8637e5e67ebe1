"""Run the environment's uv with pip's settings: `python -m deploy.pip_settings pip compile ...`.

uv reads neither pip's files nor pip's variables. Indexes, links, certificates and limits go to it in its own variables.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# A setting of pip, and uv's variable for it; several values are separated by the last.
VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "no-index": ("UV_NO_INDEX", " "),
    "no-cache-dir": ("UV_NO_CACHE", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "client-cert": ("SSL_CLIENT_CERT", " "),
    "proxy": ("ALL_PROXY", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}
# As pip: the newest file of all indexes, and the machine's certificates.
DEFAULTS = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_SYSTEM_CERTS": "1"}


def uv_variables(listing: str) -> dict[str, str]:
    """uv's variables for the output of `pip config list`."""
    lines = dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)
    variables = {}
    for section in ("global", "install", ":env:"):
        for setting, (variable, separator) in VARIABLES.items():
            if value := lines.get(f"{section}.{setting}"):
                variables[variable] = separator.join(str(ast.literal_eval(value)).split())
    return variables


def uv_environment(python: str) -> Mapping[str, str]:
    """The environment of a uv that takes the settings of this Python's pip."""
    command = [python, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {**DEFAULTS, **os.environ, **uv_variables(listing)}


def main() -> int:
    """Run uv; return its exit code."""
    uv = Path(sys.executable).with_name("uv")
    return subprocess.run([str(uv), *sys.argv[1:]], env=uv_environment(sys.executable), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
