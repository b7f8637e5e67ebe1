"""Does a policy end? A process of its own reads it and runs its patterns, so that one that does not can be killed.

`python -m services.anonymization.policy.pattern_check` takes `{"policy": TOML, "texts": [...]}` and names each pattern before it runs.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

from services.anonymization.domain import Policy
from services.anonymization.policy.policy_file import parse_policy
from tailor.errors import InvalidArgument, Reason

SECONDS = 15.0


def parse_tried_policy(source: str, texts: Iterable[str], seconds: float = SECONDS) -> Policy:
    """The policy in TOML; InvalidArgument (INVALID_POLICY) names every wrong field, and a pattern that takes too long on one of the texts."""
    # The process is given no settings: they hold keys.
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    request = json.dumps({"policy": source, "texts": list(texts)})
    try:
        subprocess.run(
            [sys.executable, "-m", __name__],
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        names = (error.stdout or b"").decode().split()
        problem = {names[-1] if names else "policy": f"takes over {seconds:g} s on this text; avoid repeats in repeats"}
        raise InvalidArgument(Reason.INVALID_POLICY, "The policy is too slow.", field_violations=problem) from None
    return parse_policy(source.encode())


def patterns(policy: Policy) -> Iterator[tuple[str, str]]:
    """The policy's patterns by field."""
    for place, pattern in enumerate(policy.allow_patterns):
        yield f"allow.patterns[{place}]", pattern
    for kind, forms in policy.codes.items():
        for place, pattern in enumerate(forms):
            yield f"codes.{kind}[{place}]", pattern


def main() -> int:
    """Try a policy; what is wrong with it is for the caller to say."""
    request = json.load(sys.stdin)
    try:
        policy = parse_policy(request["policy"].encode())
    except InvalidArgument:
        return 0
    for field, pattern in patterns(policy):
        sys.stdout.write(f"{field}\n")
        sys.stdout.flush()
        for text in request["texts"]:
            for _ in re.finditer(pattern, text):
                continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
