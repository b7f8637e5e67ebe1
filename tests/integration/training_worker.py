"""A worker over a store in a directory and a service in a file: `python training_worker.py SPEC STORE REPORTS FOLDER [--reload-here]`.

With `--reload-here` it reloads its weights in its own process instead of a fresh one, which would load the model libraries again.
It lists the packages that it loaded in REPORTS.loaded.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

from google.protobuf.json_format import MessageToJson

from services.training.methods.callers_first import make_way
from services.training.methods.loading import hide_unused_packages
from services.training.methods.processes import join
from services.training.recipe import Recipe
from services.training.spec import from_json
from services.training.worker.__main__ import Interrupt
from services.training.worker.reload_check import compute_figures, reload_in_fresh_process
from services.training.worker.reporter import LogLines, NullReporter, Reporter
from services.training.worker.worker import Worker
from tailor.api.training.v1 import training_pb2 as pb
from tailor.hardware import keep_freed_memory
from tailor.logging import configure
from tests.unit.training.stores import FileStore, make_signer

RELOAD_HERE = "--reload-here"
# The compute lock, next to the worker's folder.
LOCK = "lock"


class FileService:
    """Appends each report to a file. Asks the worker to stop once there is a file `stop` next to it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def report(self, request: pb.ReportProgressRequest) -> bool:
        """Append the report."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(MessageToJson(request, indent=None, preserving_proto_field_name=True) + "\n")
        return self._path.with_name("stop").exists()


def main() -> int:
    """Run the worker."""
    keep_freed_memory()
    spec = from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(sys.argv[4])
    lock = folder.with_name(LOCK)
    make_way(lock)
    recipe = Recipe.model_validate_json(spec.recipe_json)
    hide_unused_packages(recipe)
    processes = join(recipe.method, "replicate")
    if processes is None:
        return 0
    folder = folder / str(processes.rank)
    folder.mkdir(parents=True)
    lines = LogLines()
    configure("training-worker", "INFO", lines)
    service = FileService(Path(sys.argv[3]))
    first = processes.first
    reporter = Reporter(service.report, spec.run_id, spec.epoch, lines) if first else NullReporter()
    interrupt = Interrupt(None)
    signal.signal(signal.SIGTERM, interrupt.handle)
    worker = Worker(
        spec,
        recipe,
        FileStore(Path(sys.argv[2])),
        reporter,
        folder,
        signer=make_signer(),
        processes=processes,
        reload=compute_figures if RELOAD_HERE in sys.argv else partial(reload_in_fresh_process, compute_lock=lock),
    )
    return worker.run(interrupt.in_training, interrupt.stop_requested)


if __name__ == "__main__":
    code = main()
    loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
    Path(f"{sys.argv[3]}.loaded").write_text("\n".join(sorted(loaded)), encoding="utf-8")
    sys.stderr.flush()
    os._exit(code)
