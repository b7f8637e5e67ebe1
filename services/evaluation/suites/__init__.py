"""Fixed sets of probes that every candidate is measured on, found by name."""

import importlib
from collections.abc import Callable

from services.evaluation.ports import SuiteAsker
from services.evaluation.suites.suite import SuiteContext, SuiteResult

NAMES = ("forgetting", "safety", "memorisation")

Suite = Callable[[SuiteAsker, SuiteContext], SuiteResult]


def load(name: str) -> Suite:
    """The suite with this name. Raises KeyError for another name."""
    if name not in NAMES:
        raise KeyError(name)
    suite: Suite = importlib.import_module(f"{__name__}.{name}").run
    return suite
