"""Puts together everything that applies one policy."""

from collections.abc import Callable

from sqlalchemy import Engine

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import Policy
from services.anonymization.policy.installed import PolicyParts
from services.anonymization.policy.preview import Preview
from services.anonymization.ports import ReviewedTerms
from services.anonymization.prompts import EphemeralPromptAnonymizer
from services.anonymization.recognise.analyzer import CACHE_SIZE
from services.anonymization.recognise.lists import TermLists
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.true_values import TrueValueFinder
from services.anonymization.vault.vault import SqlVault


def make_parts(
    analyzer: TextAnalyzer,
    surrogates: Surrogates,
    vault: SqlVault,
    *,
    engine: Engine,
    settings: Settings,
    detectors: str,
    terms: ReviewedTerms,
) -> Callable[[Policy], PolicyParts]:
    """What makes the parts of a policy; takes seconds. It raises InvalidArgument (INVALID_POLICY) if a file of names cannot be read."""
    # Models and a lock for prompts, which do not wait for documents. Loaded once: a policy may change often.
    for_prompts = analyzer.apart(analyzer.policy)

    def build(policy: Policy) -> PolicyParts:
        policy_analyzer = analyzer.with_policy(policy, CACHE_SIZE)
        lists = TermLists(settings.lists_dir, policy)
        return PolicyParts(
            anonymizer=TextAnonymizer(
                policy_analyzer, surrogates, settings.seconds_per_text, terms, lists=lists, detectors_digest=detectors
            ),
            prompts=EphemeralPromptAnonymizer(policy_analyzer, terms, lists=lists, apart=for_prompts),
            previewer=Preview(policy_analyzer, surrogates, vault, terms, lists_dir=settings.lists_dir),
            true_values=TrueValueFinder(engine, vault, policy_analyzer),
        )

    return build
