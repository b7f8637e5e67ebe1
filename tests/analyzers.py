"""The analyzer of English that an installation without settings has, for tests."""

from functools import cache

from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import CACHE_SIZE, Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors

# Types of values with a form, of which none may be left in a text.
WITH_A_FORM = set(
    "EMAIL_ADDRESS PHONE_NUMBER IBAN CREDIT_CARD EMPLOYEE_CODE PROJECT_CODE IP_ADDRESS NATIONAL_ID".split()
)


def load_english() -> Analyzer:
    """An analyzer that has seen no text. The models are loaded once per process, which takes seconds."""
    return _load().with_policy(load_policy(), CACHE_SIZE)


@cache
def _load() -> Analyzer:
    return Analyzer.load(load_detectors(), load_policy())
