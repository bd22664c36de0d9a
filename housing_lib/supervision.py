"""papermill's client under supervision: outputs as they come, no secrets, no floods, an end."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from housing_lib.privacy import hide, secret_values
from housing_lib.processes import kill_tree

ENGINE = "housing"
PATIENCE_S = 300  # nbclient's own four seconds for an output fail steps on a machine at its limit
MOST_PRINTED = 1_000_000  # characters that one cell may print into its notebook
CUT = "\n… what follows was cut: one cell may print {:,} characters.\n"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Supervisor:
    """What watches over one execution: who hears its outputs, and what ends it early.

    `stopped` is set from outside, with the reason in `why_stopped`; `limit_s`
    bounds the notebook as a whole.
    """

    on_output: Callable[[str], None] = lambda text: None
    stopped: threading.Event = field(default_factory=threading.Event)
    why_stopped: Callable[[], str] = lambda: "it was stopped"
    limit_s: float | None = None
    reason: str = ""
    printed: int = 0
    secrets: list[str] = field(default_factory=secret_values)
    _ended: threading.Event = field(default_factory=threading.Event)

    def watch(self, kernel_pid: int) -> None:
        """Kill the kernel and what it started, once it is stopped or its time is over."""
        threading.Thread(target=self._watch, args=(kernel_pid,), daemon=True).start()

    def _watch(self, kernel_pid: int) -> None:
        was_stopped = self.stopped.wait(self.limit_s)
        if self._ended.is_set():
            return
        limit = f"it took longer than {self.limit_s:g} seconds" if self.limit_s else ""
        self.reason = self.why_stopped() if was_stopped else limit
        kill_tree(kernel_pid)

    def end(self) -> None:
        """Let the watching thread go: the notebook has ended."""
        self._ended.set()
        self.stopped.set()

    def admit(self, message: dict[str, Any]) -> bool:
        """Whether a message may enter the notebook, after taking secrets out and passing it on."""
        content = message["content"] = hide(message["content"], self.secrets)
        kind = message["msg_type"]
        if kind == "error":
            self.on_output(ANSI.sub("", "\n".join(content["traceback"])) + "\n")
        if kind != "stream":
            return True
        room = MOST_PRINTED - self.printed
        self.printed += len(content["text"])
        if room > 0:
            self.on_output(content["text"])
            if len(content["text"]) > room:
                content["text"] = content["text"][:room] + CUT.format(MOST_PRINTED)
                self.on_output(CUT.format(MOST_PRINTED))
        return room > 0


class SupervisedClient(PapermillNotebookClient):
    """papermill's client, whose messages pass a supervisor first."""

    def __init__(self, nb_man: Any, *, supervisor: Supervisor, **options: Any) -> None:
        super().__init__(nb_man, **options)
        self.supervisor = supervisor

    def papermill_execute_cells(self) -> None:
        """Execute the cells under supervision."""
        self.supervisor.watch(self.km.provisioner.pid)
        try:
            super().papermill_execute_cells()
        finally:
            self.supervisor.end()

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """The executed cell; each may print anew."""
        self.supervisor.printed = 0
        return super().execute_cell(cell, cell_index, **options)

    def process_message(self, message: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """The output that a message became, if it may become one."""
        if not self.supervisor.admit(message):
            return None
        return super().process_message(message, cell, cell_index)


class SupervisedEngine(NBClientEngine):
    """papermill's engine with the supervised client."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Execute the notebook that papermill prepared."""
        for name in ("input_path", "log_output", "stdout_file", "stderr_file"):
            options.pop(name, None)
        options["startup_timeout"] = max(options.pop("start_timeout"), PATIENCE_S)
        options["iopub_timeout"] = PATIENCE_S
        options["timeout"] = options.pop("execution_timeout", None)
        SupervisedClient(nb_man, kernel_name=kernel_name, **options).execute()


papermill_engines.register(ENGINE, SupervisedEngine)
