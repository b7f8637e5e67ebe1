"""A real worker over directories that says, as its last line, the most memory it held: `python -m tests.bench.measured_worker SPEC STORE REPORTS FOLDER`."""

import os
import resource
import sys

from tests.integration.training_worker import main

if __name__ == "__main__":
    code = main()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
    sys.stderr.flush()
    os._exit(code)
