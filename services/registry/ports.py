"""What the registry's handlers need from other services. Calls block; every one may raise Unavailable."""

from collections.abc import Callable, Sequence

from services.registry.domain import ErasureReceipt
from tailor.values import Labels

# The text without personal data, by the anonymization policy for the labels.
Anonymize = Callable[[str, Labels], str]
# Raises NotFound or InvalidArgument if training does not have the base and the recipes.
CheckPipeline = Callable[[str, Sequence[str]], None]

# Have an adapter evaluated again; the second argument is the request id.
RequestEvaluation = Callable[[str, str], None]

# Sign a receipt's body with the registry's identity key.
Sign = Callable[[str], ErasureReceipt]
