"""`python -m services.anonymization.rotate`: encrypt the whole vault under TAILOR_VAULT_KEY, beside running replicas.

Name the new key in TAILOR_VAULT_KEY and the old ones in TAILOR_VAULT_PREVIOUS_KEYS, restart the replicas, then run this until nothing is
left; after that the old keys can go.
"""

import json
import sys

from services.anonymization.settings import Settings, decode_key, decode_keys
from services.anonymization.vault.keyring import Keyring, rotate
from tailor.errors import TailorError
from tailor.sql import connect


def main() -> int:
    """Rotate, and say how much it was; 1 where something is left or a key is missing."""
    settings = Settings()
    engine = connect(settings.database_url.get_secret_value())
    try:
        done = rotate(engine, Keyring(decode_key(settings.vault_key), decode_keys(settings.vault_previous_keys)))
    except TailorError as error:
        sys.stderr.write(f"error: {error.reason}: {error.message}\n")
        return 1
    finally:
        engine.dispose()
    sys.stdout.write(json.dumps(done) + "\n")
    return 1 if done["left"] else 0


if __name__ == "__main__":
    sys.exit(main())
