"""Keeps a process from loading packages that it does not need but that happen to be installed."""

import sys


def hide_packages(*names: str) -> None:
    """Make later imports of these packages fail with ImportError, as if they were not installed. One that is loaded stays.

    Transformers, peft, spaCy and others import optional packages if they are installed, at a cost of seconds and hundreds of megabytes
    per process. In the embedded stack everything is installed, because all services share one environment. For entry points only, before
    the first import that would load one: the packages are hidden from the whole process.
    """
    for name in names:
        # None is what the import system documents for this; `importlib.util.find_spec` then finds nothing either.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
