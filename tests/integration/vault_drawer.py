"""One replica that draws: `python vault_drawer.py DATABASE_URL KEY SEED` prints `ready`, waits for a line, draws, and prints the surrogates."""

import json
import random
import sys

from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.keyring import DRAW
from services.anonymization.vault.vault import SqlVault
from tailor.sql import connect
from tests.integration.vault_values import VALUES


def main() -> int:
    """Draw every value once, in an order that depends on the seed."""
    vault = SqlVault(connect(sys.argv[1]), bytes.fromhex(sys.argv[2]))
    surrogates = Surrogates(vault, Lexicon.load(["the"]), vault.secret(DRAW))
    order = list(range(len(VALUES)))
    random.Random(int(sys.argv[3])).shuffle(order)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    drawn = {}
    for place in order:
        kind, value = VALUES[place]
        match kind:
            case "PERSON":
                drawn[value] = surrogates.person(value, "", People())
            case "EMAIL_ADDRESS":
                drawn[value] = surrogates.mail(value, People())
            case "ADDRESS":
                drawn[value] = surrogates.address(value)
            case _:
                drawn[value] = surrogates.other(kind, value)
    sys.stdout.write(json.dumps(drawn) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
