"""Reading a policy file."""

import hashlib
import re
import tomllib
from pathlib import Path

from services.anonymization.domain import Action, Policy
from tailor.errors import InvalidArgument

DEFAULT = Path(__file__).parents[1] / "policies" / "default.toml"


def load_policy(path: Path = DEFAULT) -> Policy:
    """The policy in a TOML file; InvalidArgument (BAD_POLICY) says what is wrong with it."""
    data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode())
        policy = Policy(
            digest=hashlib.sha256(data).hexdigest(),
            actions={kind: Action(action) for kind, action in content["types"].items()},
            codes={kind: tuple(forms) for kind, forms in content.get("codes", {}).items()},
            deny={kind: tuple(names) for kind, names in content.get("deny", {}).items()},
            allow_terms=tuple(content.get("allow", {}).get("terms", ())),
            allow_patterns=tuple(content.get("allow", {}).get("patterns", ())),
        )
        for pattern in (*policy.allow_patterns, *(form for forms in policy.codes.values() for form in forms)):
            re.compile(pattern)
    except (ValueError, KeyError, AttributeError, re.error) as error:
        raise InvalidArgument("BAD_POLICY", f"The policy {path.name} cannot be read: {type(error).__name__}.") from None
    return policy
