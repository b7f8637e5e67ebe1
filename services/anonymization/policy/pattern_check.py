"""Checks that a policy's patterns end. They run in a separate process, which is killed if one does not.

`python -m services.anonymization.policy.pattern_check` reads `{"policy": TOML, "texts": [...]}` and prints the name of each pattern before
running it.
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
from tailor.logging import describe_exit, get_logger

log = get_logger(__name__)

MAX_SECONDS = 15.0


def parse_checked_policy(source: str, texts: Iterable[str], max_seconds: float = MAX_SECONDS) -> Policy:
    """The policy in TOML. Blocks for up to `max_seconds`.

    Raises InvalidArgument (INVALID_POLICY) with a violation for every wrong field, or for a pattern that is too slow on one of the texts.
    """
    # The process gets no settings, because they hold keys.
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    request = json.dumps({"policy": source, "texts": list(texts)})
    try:
        child = subprocess.run(
            [sys.executable, "-m", __name__],
            input=request.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=max_seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        names = (error.stdout or b"").decode().split()
        problem = f"takes over {max_seconds:g} s on this text; avoid nested repeats such as (a+)+"
        violations = {names[-1] if names else "policy": problem}
        raise InvalidArgument(Reason.INVALID_POLICY, "The policy is too slow.", field_violations=violations) from None
    if child.returncode:
        log.warning("pattern check failed", error=describe_exit(child.returncode))
    return parse_policy(source.encode())


def patterns(policy: Policy) -> Iterator[tuple[str, str]]:
    """The policy's patterns with the names of their fields."""
    for place, pattern in enumerate(policy.allow_patterns):
        yield f"allow.patterns[{place}]", pattern
    for kind, forms in policy.codes.items():
        for place, pattern in enumerate(forms):
            yield f"codes.{kind}[{place}]", pattern


def main() -> int:
    """Run all patterns. The caller reports everything else that is wrong with the policy."""
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
