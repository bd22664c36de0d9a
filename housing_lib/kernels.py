"""Kernels that start with the slow imports done: forked from a process that has them already."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner

PROVISIONER = "housing-fork"  # the entry point of ForkProvisioner in pyproject.toml


def use_forked_kernels() -> None:
    """Let every kernel that this process starts be a fork of it.

    Importing what a notebook needs takes longer than most notebooks. Only Linux
    forks such a process safely; elsewhere kernels start as they always do.
    """
    if sys.platform == "linux":
        os.environ["JUPYTER_DEFAULT_PROVISIONER_NAME"] = PROVISIONER


class ForkProvisioner(LocalProvisioner):
    """A local kernel that is forked from this process instead of started anew."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """The connection of the kernel that the fork became."""
        arguments = cmd[cmd.index("-f") :]
        fork = _Fork(arguments, kwargs["env"], kwargs["cwd"])
        self.process: Any = fork
        self.pid = self.pgid = fork.pid  # the kernel leads a session of its own
        return self.connection_info


class _Fork:
    """A forked process in the words of `subprocess.Popen`, which jupyter_client speaks."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: Mapping[str, str], folder: str) -> None:
        context = get_context("fork")
        self.process = context.Process(
            target=_become_kernel, args=(arguments, dict(environment), folder)
        )
        self.process.start()
        self.pid = self.process.pid or 0

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    asyncio.set_event_loop(asyncio.new_event_loop())  # the one that is there is the parent's
    os.environ.update(environment)
    os.chdir(folder)
    # With a parent to watch, the kernel ends when that one does, however it ended. Its log would
    # tell the terminal of the interrupt that every shutdown begins with.
    watched = [f"--IPKernelApp.parent_handle={os.getppid()}", "--IPKernelApp.log_level=50"]
    IPKernelApp.launch_instance(argv=[*arguments, *watched])
