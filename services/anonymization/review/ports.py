"""The kinds of functions that the review is given."""

from collections.abc import Callable, Sequence

from services.anonymization.review.domain import PassageStretch
from tailor.values import Labels

# The types that the policy does not keep in documents with these labels.
TypesOf = Callable[[Labels], tuple[str, ...]]
# The keyed hash of a term in any spelling.
HashTerm = Callable[[str], str]
# The Ed25519 signature of a statement with the service's identity key, and its public key.
Sign = Callable[[bytes], tuple[bytes, bytes]]
# True if that key signed the data.
Verify = Callable[[bytes, bytes], bool]
# Finds what may single a person out together with other such values, with their types: job titles, places, ages, years of birth,
# nationalities. The stretches are replaced values, with a type only if they were made coarser.
QuasiIdentifiers = Callable[[str, Sequence[PassageStretch]], list[PassageStretch]]
