"""The `tailor` command."""

import os

# Before gRPC's core is loaded, which reads it once: its log lines are not for a person at a terminal. Set it to `info` to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
