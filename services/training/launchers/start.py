"""Chooses the launcher that the settings name."""

from services.training.launchers.subprocess import SubprocessLauncher
from services.training.ports import Launcher
from services.training.settings import Settings
from tailor.runtime import Runtime


def start_launcher(runtime: Runtime, settings: Settings) -> Launcher:
    """The launcher, connected; the runtime stops it or its threads."""
    if settings.launcher == "subprocess":
        launcher = SubprocessLauncher.from_settings(settings)
        runtime.on_stop(launcher.stop_all)
        return launcher
    from services.training.launchers.kubernetes import KubernetesLauncher

    jobs = KubernetesLauncher.from_settings(settings)
    runtime.spawn("jobs", jobs.watch)
    return jobs
