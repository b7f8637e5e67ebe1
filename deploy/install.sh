#!/bin/sh
# Start deploy/install.py with PYTHON if it is set, with the environment's own Python if there is one, and otherwise with the newest
# supported Python on PATH that runs and can make virtual environments. A shim that fails is passed over. VENV is relative to the repository.
#   VENV (default .venv), PYTHON, SET: see `make help`
set -u
VENV=${VENV:-.venv}
PROBE='
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(1)
try:
    import ensurepip, venv
except ImportError:
    print("%d.%d" % sys.version_info[:2])
'

start() {
    cd "$(dirname "$0")/.." || exit 1
    exec "$1" -m deploy.install --venv "$VENV" ${SET:+--set "$SET"}
}

if [ -n "${PYTHON:-}" ]; then
    "$PYTHON" -c "" 2>/dev/null || { echo "$PYTHON does not run: name another Python, make PYTHON=/path/to/python3.13." >&2; exit 1; }
    start "$PYTHON"
fi
if "$VENV/bin/python" -c "" 2>/dev/null; then
    start "$VENV/bin/python"
fi

without_venv=
IFS=:
for name in python3.13 python3.12 python3.11 python3; do
    for directory in $PATH; do
        [ -x "$directory/$name" ] || continue
        answer=$("$directory/$name" -c "$PROBE" 2>/dev/null) || continue
        if [ -z "$answer" ]; then
            unset IFS
            start "$directory/$name"
        fi
        without_venv=${without_venv:-$answer}
    done
done
if [ -n "$without_venv" ]; then
    echo "Python $without_venv has no venv module: apt-get install python$without_venv-venv" >&2
else
    echo "Tailor needs Python 3.11, 3.12 or 3.13: apt-get install python3 python3-venv on Debian 12 or 13 and Ubuntu 24.04, or make PYTHON=/path/to/python3.13." >&2
fi
exit 1
