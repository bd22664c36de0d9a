"""Which threads of the server come first."""

import contextlib
import os
import threading


def give_way(niceness: int) -> None:
    """Let threads that answer single requests come before this one."""
    with contextlib.suppress(AttributeError, OSError):  # threads have priorities on Linux only
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
