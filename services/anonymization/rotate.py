"""`python -m services.anonymization.rotate`: re-encrypt the whole vault with TAILOR_VAULT_KEY while replicas run.

Put the new key into TAILOR_VAULT_KEY and the old ones into TAILOR_VAULT_PREVIOUS_KEYS, restart the replicas, then run this until it
reports `"left": 0`. After that the old keys can be removed.
"""

import json
import sys

from services.anonymization.adapters.policies import rotate_policies
from services.anonymization.settings import Settings
from services.anonymization.vault.keyring import Keyring, rotate
from tailor.errors import TailorError
from tailor.sql import connect


def main() -> int:
    """Rotate and print the counts. Returns 1 if something is left or a key is missing."""
    settings = Settings()
    engine = connect(settings.database_url.get_secret_value())
    try:
        keys = Keyring(*settings.vault_keys)
        counts = rotate(engine, keys) | {"policies": rotate_policies(engine, keys)}
    except TailorError as error:
        sys.stderr.write(f"error: {error.reason}: {error.message}\n")
        return 1
    finally:
        engine.dispose()
    sys.stdout.write(json.dumps(counts) + "\n")
    return 1 if counts["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
