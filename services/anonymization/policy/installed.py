"""The policy in force. It changes while the service runs, for all replicas at once: the database says which one is in force."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.anonymization.adapters.policies import SqlPolicies
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import MAX_POLICY_CHARS, NO_LABELS, Anonymized, InstalledPolicy, Policy
from services.anonymization.policy.allowing import EXTENDS_DEFAULT, allow_terms
from services.anonymization.policy.policy_file import DEFAULT, parse_policy, read_policy_file
from services.anonymization.policy.preview import Preview
from services.anonymization.ports import Anonymizer
from services.anonymization.prompts import EphemeralPromptAnonymizer
from services.anonymization.recognise.analyzer import CACHE_SIZE
from services.anonymization.recognise.lists import TermLists
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.review.terms import HashedTerms
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.true_values import TrueValueFinder
from services.anonymization.vault.vault import SqlVault
from tailor.errors import InvalidArgument, Reason
from tailor.logging import get_logger
from tailor.values import Labels

log = get_logger(__name__)

LOOK_SECONDS = 1.0
BY_SETTINGS, BY_DEFAULT, BY_DETECTORS = "settings", "default", "detectors"


@dataclass(frozen=True)
class PolicyParts:
    """Everything that applies one policy."""

    anonymizer: Anonymizer
    prompts: EphemeralPromptAnonymizer
    previewer: Preview
    true_values: TrueValueFinder


def make_parts(
    analyzer: TextAnalyzer,
    surrogates: Surrogates,
    vault: SqlVault,
    *,
    settings: Settings,
    terms: HashedTerms,
    detectors: str,
) -> Callable[[Policy], PolicyParts]:
    """What makes the parts of a policy; takes seconds. It raises InvalidArgument (INVALID_POLICY) if a file of names cannot be read."""
    # Readers for prompts, which do not wait for documents. Loaded once: a policy may change often.
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
            true_values=TrueValueFinder(vault, policy_analyzer),
        )

    return build


class CurrentPolicy(Anonymizer):
    """Applies the policy in force, which is `policy`, `installed` and `parts` as of the last look. Thread-safe.

    Documents, rows and typed texts ask the database first, so that nothing passes under a policy that was replaced before it arrived.
    Prompts, which must not wait for the database, follow within `LOOK_SECONDS`.
    """

    def __init__(
        self,
        policies: SqlPolicies,
        build: Callable[[Policy], PolicyParts],
        announce: Callable[[InstalledPolicy], None],
        detectors: str,
    ) -> None:
        """Apply what is in force; `announce` publishes it. Raises InvalidArgument (INVALID_POLICY) if this release cannot read it."""
        self._policies = policies
        self._build = build
        self._announce = announce
        self._detectors = detectors
        self._lock = threading.Lock()
        self.installed, source = policies.newest()
        self.policy = parse_policy(source)
        self.parts = build(self.policy)
        announce(self.installed)

    def install(self, source: bytes, caller: str) -> tuple[InstalledPolicy, bool]:
        """Put a policy in force for all replicas. Returns it, and whether it was not in force before.

        Raises InvalidArgument (INVALID_POLICY), and then nothing has changed.
        """
        policy = parse_policy(source)
        self._build(policy)
        current = self.look()
        if current.policy_digest == policy.digest and current.detectors_digest == self._detectors:
            self._announce(current)
            return current, False
        self._policies.install(source, policy.digest, self._detectors, caller)
        return self.look(), True

    def allow(self, terms: Sequence[str], caller: str) -> None:
        """Put a policy in force that also allows the terms. Idempotent. Raises InvalidArgument (INVALID_POLICY, TOO_LONG)."""
        with self._policies.lock():
            installed, source = self._policies.newest()
            # An extension goes on to follow the default policy of later releases.
            base = EXTENDS_DEFAULT if installed.installed_by == BY_DEFAULT else source
            extended = allow_terms(base, terms)
            if len(extended.decode()) > MAX_POLICY_CHARS:
                raise InvalidArgument(
                    Reason.TOO_LONG,
                    "The policy is too long.",
                    field_violations={"allow.terms": "are too many; put them into a file and install the policy again"},
                )
            if extended != base:
                self.install(extended, caller)

    def look(self) -> InstalledPolicy:
        """Apply the policy in force if it is another one, and return it."""
        with self._lock:
            if self._policies.newest_generation() != self.installed.generation:
                installed, source = self._policies.newest()
                self.policy = parse_policy(source)
                self.parts = self._build(self.policy)
                self.installed = installed
                self._announce(installed)
                log.info("policy applied", generation=installed.generation, digest=installed.policy_digest)
            return self.installed

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        self.look()
        return self.parts.anonymizer.anonymize(texts, labels, passed)


def install_from_settings(policies: SqlPolicies, settings: Settings, detectors: str) -> None:
    """At the start, put the policy of the settings in force if its file changed since it was last seen, or if nothing is in force.

    So the last change counts, whether it was a file or `ApplyPolicy`. New detectors are recorded too.
    Raises InvalidArgument (INVALID_POLICY).
    """
    source = read_policy_file(settings.policy_file or DEFAULT)
    policy = parse_policy(source)
    with policies.lock():
        known = policies.find_newest()
        if settings.policy_file is not None and policies.newest_file() != policy.digest:
            policies.install(source, policy.digest, detectors, BY_SETTINGS, is_file=True)
        elif known is None or (settings.policy_file is None and _is_older_default(known, policy)):
            policies.install(source, policy.digest, detectors, BY_DEFAULT)
        elif known.detectors_digest != detectors:
            policies.install(policies.newest()[1], known.policy_digest, detectors, BY_DETECTORS)


def _is_older_default(known: InstalledPolicy, policy: Policy) -> bool:
    return known.installed_by == BY_DEFAULT and known.policy_digest != policy.digest
