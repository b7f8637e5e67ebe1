"""A process that gets SIGTERM: its running calls end before its threads do."""

import os
import signal
import subprocess
import sys

PROCESS = """
import sys, threading, time
from tailor.runtime import main
from tailor.settings import ServiceSettings

class Server:
    def start(self): pass
    def set_serving(self, serving): pass
    def stop(self, grace):
        if not stopping.is_set():
            stopping.set()
            print("grace", grace, flush=True)
            time.sleep(0.5)
            print("call ended", flush=True)

stopping = threading.Event()

def work(stop):
    stop.wait()
    print("thread ended", flush=True)

def build(runtime, settings):
    runtime.serve(Server())
    runtime.spawn("work", work)
    runtime.ready()
    print("ready", flush=True)

main("test", ServiceSettings, build)
"""


def test_running_calls_end_before_the_threads_after_sigterm() -> None:
    environment = {**os.environ, "TAILOR_STATUS_PORT": "0", "TAILOR_STOP_GRACE_SECONDS": "42"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert printed.splitlines() == ["grace 42.0", "call ended", "thread ended"]
    assert process.returncode == 0
