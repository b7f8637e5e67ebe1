"""The analyzer of English that an installation without settings has, for tests."""

from functools import cache

from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import CACHE_SIZE, Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors


def load_english() -> Analyzer:
    """An analyzer that has seen no text. The models are loaded once per process, which takes seconds."""
    return _load().with_policy(load_policy(), CACHE_SIZE)


@cache
def _load() -> Analyzer:
    return Analyzer.load(load_detectors(), load_policy())
