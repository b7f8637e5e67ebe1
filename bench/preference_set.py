"""A synthetic preference set for the bench: concise and actionable beats long and vague.

Every prompt asks how to handle a subject. The chosen answer is two or three short steps with an owner and a date, the rejected one a long sentence
that commits to nothing. Held-out prompts are about subjects that no training prompt names.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SYSTEM = "Advise."
ASKS = (
    "How do we handle {}?",
    "What should we do about {}?",
    "Advise us on {}.",
    "The client asks about {}. What do we say?",
    "What is the next step on {}?",
    "We are behind on {}. What now?",
    "Who should act on {}, and when?",
    "Summarise what to do about {}.",
)
SUBJECTS = (
    "late invoices", "the stock count", "supplier onboarding", "access rights", "the travel policy", "the data backup", "overtime claims",
    "contract renewals", "the budget review", "expense reports", "the quality audit", "customer complaints", "the hiring plan", "unpaid deposits",
    "the price list", "project delays", "the safety check", "duplicate payments", "the payroll run", "tax filings", "the office move",
    "missing receipts", "the risk register", "software licences", "the month-end close", "credit limits", "the training plan", "scrap rates",
    "delivery errors", "the loan covenant",
)  # fmt: skip
HELD_OUT_SUBJECTS = 6
OWNERS = ("the controller", "the team lead", "the buyer", "finance", "the plant manager", "operations", "the auditor")
DATES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "month end")
ACTIONS = (
    "List the open cases",
    "Check the ten largest items",
    "Fix the three oldest cases",
    "Agree one rule",
    "Call the owner",
    "Close what is done",
)
OPENINGS = (
    "It is important to consider that",
    "Generally speaking, one could say that",
    "There are of course many aspects, and",
    "In this context it may be noted that",
)
MIDDLES = (
    "can be a complex topic",
    "is a matter that touches many things",
    "may depend on various factors",
    "often needs a holistic view",
)
ENDINGS = (
    "which various stakeholders might want to think about over time as the situation evolves.",
    "so that it could be useful to reflect on it further at some point in the future.",
    "and it would perhaps be beneficial to explore different perspectives before anything is decided.",
    "and in many cases it can make sense to keep an open mind and to see how things develop.",
)  # fmt: skip


@dataclass(frozen=True)
class Preference:
    """One prompt with both answers."""

    row_id: str
    prompt: str
    chosen: str
    rejected: str
    held_out: bool


def preferences(seed: int = 11) -> Iterator[Preference]:
    """Every question about every subject: 240 prompts, a fifth of them about held-out subjects. Deterministic by seed."""
    chance = random.Random(seed)
    for place, subject in enumerate(SUBJECTS):
        for number, ask in enumerate(ASKS):
            yield Preference(
                f"pref_{place:02}_{number}",
                ask.format(subject),
                concise(subject, chance),
                vague(subject, chance),
                held_out=place >= len(SUBJECTS) - HELD_OUT_SUBJECTS,
            )


def concise(subject: str, chance: random.Random) -> str:
    """Short steps, an owner, a date."""
    first, second = chance.sample(ACTIONS, 2)
    owner, date = chance.choice(OWNERS), chance.choice(DATES)
    return f"1. {first} on {subject}. 2. {second}. 3. {owner.capitalize()} reports by {date}."


def vague(subject: str, chance: random.Random) -> str:
    """Many words, nothing to do."""
    return f"{chance.choice(OPENINGS)} {subject} {chance.choice(MIDDLES)}, {chance.choice(ENDINGS)}"


def conversation(prompt: str) -> list[dict[str, str]]:
    """The prompt as a row's messages."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]


def preference_rows(*, held_out: bool) -> list[dict[str, Any]]:
    """The rows of a preference dataset's split."""
    return [
        {
            "row_id": preference.row_id,
            "messages": conversation(preference.prompt),
            "chosen": preference.chosen,
            "rejected": preference.rejected,
        }
        for preference in preferences()
        if preference.held_out == held_out
    ]


def demonstration_rows(*, held_out: bool, seed: int = 12) -> list[dict[str, Any]]:
    """The rows of an sft dataset's split: a company that writes in both ways equally often."""
    chance = random.Random(seed)
    return [
        {
            "row_id": preference.row_id,
            "messages": [
                *conversation(preference.prompt),
                {"role": "assistant", "content": chance.choice((preference.chosen, preference.rejected))},
            ],
        }
        for preference in preferences()
        if preference.held_out == held_out
    ]
