"""One function per event and command."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from services.anonymization.domain import (
    MAX_CHARS,
    MAX_POLICY_CHARS,
    MAX_PREVIEW_CHARS,
    MAX_PROMPT_CHARS,
    MAX_PROMPT_TEXTS,
    MIN_PURPOSE_CHARS,
    NO_LABELS,
    Anonymized,
    AnonymizedPrompt,
    Anonymizer,
    Audit,
    Corpus,
    Facts,
    Ingested,
    Labels,
    Ledger,
    Outcome,
    Passed,
    PromptAnonymizer,
    Quarantine,
    Stage,
    Subjects,
    Text,
    Unreadable,
    Vault,
)
from services.anonymization.spans import moved
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, Reason

EXPIRED = "The quarantined text is gone; publish the document again."
DAMAGED = "The quarantined text does not verify; publish the document again, and check TAILOR_QUARANTINE_KEY."
NAME_TYPES = ("PERSON", "CLIENT")


@dataclass(frozen=True)
class Barrier:
    """What handling needs."""

    quarantine: Quarantine
    corpus: Corpus
    ledger: Ledger
    facts: Facts
    anonymizer: Anonymizer
    policy_digest: str
    language_of: Callable[[str], str]
    subjects: Subjects
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)


def pass_document(barrier: Barrier, ingested: Ingested) -> Outcome:
    """Take a document through; told again, state the same. Its quarantined bytes are deleted once the event is out."""
    outcome = barrier.ledger.find(ingested.document_id, ingested.sequence)
    if outcome is None:
        outcome = barrier.ledger.record(_decide(barrier, ingested))
    barrier.facts.state(outcome)
    barrier.quarantine.delete(ingested.text)
    return outcome


def anonymize_text(anonymizer: Anonymizer, text: str, labels: Labels = NO_LABELS) -> Anonymized:
    """Anonymise one text that somebody typed, under the rules for the labels of what it belongs to; InvalidArgument where it is too
    long."""
    if len(text) > MAX_CHARS:
        raise InvalidArgument(
            Reason.TEXT_TOO_LONG, f"At most {MAX_CHARS} characters; publish longer texts as documents."
        )
    return anonymizer.anonymize((text,), labels)


def anonymize_prompt(
    anonymizer: PromptAnonymizer, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]
) -> AnonymizedPrompt:
    """Replace the personal values of a prompt by surrogates of its own, and say which; InvalidArgument where it is too long."""
    if len(texts) + len(beside) > MAX_PROMPT_TEXTS or sum(map(len, (*texts, *beside))) > MAX_PROMPT_CHARS:
        message = f"At most {MAX_PROMPT_TEXTS} texts, and {MAX_PROMPT_CHARS} characters in all."
        raise InvalidArgument(Reason.PROMPT_TOO_LONG, message, field_violations={"texts": message})
    return anonymizer.anonymize(texts, labels, beside)


def preview(stage: Stage, text: str, policy: str, labels: Labels) -> tuple[Anonymized, str]:
    """What a text would become, and the digest of the policy that says so. Nothing is kept."""
    problems = {}
    if len(text) > MAX_PREVIEW_CHARS:
        problems["text"] = f"has over {MAX_PREVIEW_CHARS} characters; send a part of it"
    if len(policy) > MAX_POLICY_CHARS:
        problems["policy"] = f"has over {MAX_POLICY_CHARS} characters"
    if problems:
        raise InvalidArgument(Reason.TOO_LONG, "The request is too long.", field_violations=problems)
    rehearsal = stage.rehearse(policy, text)
    return rehearsal.anonymize((text,), labels), rehearsal.policy_digest


def reidentify(vault: Vault, audit: Audit, *, caller: str, entity_type: str, surrogate: str, purpose: str) -> str:
    """The true value behind a surrogate. The call is kept before it is answered, also when there is no answer."""
    if len(purpose.strip()) < MIN_PURPOSE_CHARS:
        raise InvalidArgument(
            Reason.NO_PURPOSE, f"Say why in at least {MIN_PURPOSE_CHARS} characters; it is kept in the audit log."
        )
    if not entity_type or not surrogate.strip():
        raise InvalidArgument(Reason.NO_SURROGATE, "Name the type and the surrogate as it stands in a text.")
    audit.record(caller, entity_type, surrogate, purpose)
    value = vault.reveal(entity_type, surrogate.strip())
    if value is None:
        raise NotFound(Reason.UNKNOWN_SURROGATE, "The vault knows no such surrogate of this type.")
    return value


def _decide(barrier: Barrier, ingested: Ingested) -> Outcome:
    try:
        text = barrier.quarantine.read(ingested)
    except NotFound:
        return Unreadable(ingested, EXPIRED, barrier.now_ms())
    except (FailedPrecondition, InvalidArgument):
        return Unreadable(ingested, DAMAGED, barrier.now_ms())
    texts = (text.text,) if text.prompt is None else (text.prompt, text.text)
    result = barrier.anonymizer.anonymize(texts, ingested.labels)
    clean = Text(result.texts[-1], None if text.prompt is None else result.texts[0])
    # Kept before the text is: what is in the corpus can always be found by whom it is about.
    barrier.subjects.keep(ingested.document_id, result.values)
    ref = barrier.corpus.write(clean)
    return Passed(
        ingested,
        ref,
        len(clean.text) + len(clean.prompt or ""),
        result.findings,
        barrier.policy_digest,
        barrier.now_ms(),
        barrier.language_of(clean.text),
        moved(ingested.spans, result.changes[-1]),
    )
