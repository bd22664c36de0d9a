"""One notebook, executed: what it prints, what ends it early, what is kept and what is hidden."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbformat import v4

from housing_lib import execution, parameters, privacy, processes

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
HANG = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {!r}]); time.sleep(60)"
)


def code(source: str, *tags: str) -> Any:
    return v4.new_code_cell(source, metadata={"tags": list(tags)})


def write_notebook(path: Path, *cells: Any) -> Path:
    nbformat.write(v4.new_notebook(cells=list(cells), metadata={"kernelspec": KERNEL}), path)
    return path


def children_named(mark: str) -> list[psutil.Process]:
    return [one for one in psutil.process_iter(["cmdline"]) if mark in (one.info["cmdline"] or [])]


def test_a_notebook_that_takes_too_long_is_killed_with_all_it_started_and_kept(tmp_path):
    mark = "import time; time.sleep(61.5)"
    cells = code("print('this ran')"), code(HANG.format(mark)), code("1")
    notebook = write_notebook(tmp_path / "slow.ipynb", *cells)
    started = time.monotonic()
    with pytest.raises(execution.StepFailedError, match="took longer than 3 seconds"):
        execution.execute(notebook, {}, tmp_path / "out" / "slow.ipynb", limit_s=3)
    assert time.monotonic() - started < 20
    content = json.loads((tmp_path / "out" / "slow.ipynb").read_text())
    assert content["cells"][0]["outputs"][0]["text"] == ["this ran\n"]
    assert content["metadata"]["papermill"]["exception"] is True
    assert not children_named(mark)


def test_the_limit_is_that_of_the_notebook_and_not_of_each_cell(tmp_path):
    cells = [code("import time; time.sleep(0.8)") for _ in range(5)]
    notebook = write_notebook(tmp_path / "slow.ipynb", *cells)
    with pytest.raises(execution.StepFailedError, match=r"code cell [234] of 5.*\n.*longer than 2"):
        execution.execute(notebook, {}, tmp_path / "out" / "slow.ipynb", limit_s=2)


def test_a_process_that_ends_is_a_failure(tmp_path):
    notebook = write_notebook(tmp_path / "dead.ipynb", code("import os; os._exit(1)"))
    with pytest.raises(execution.StepFailedError, match=r"its process ended.*Kernel died"):
        execution.execute(notebook, {}, tmp_path / "out" / "dead.ipynb")


def test_what_is_no_notebook_is_refused_by_name(tmp_path):
    (tmp_path / "empty.ipynb").write_text("")
    for name in ("empty.ipynb", "missing.ipynb"):
        with pytest.raises(parameters.NotebookError, match=rf"{name} is not a notebook"):
            execution.execute(tmp_path / name, {}, tmp_path / "out.ipynb")


def test_what_a_cell_prints_is_in_the_log_within_two_seconds(tmp_path):
    cell = "import time; print('SAID', time.time()); time.sleep(2.5)"
    notebook = write_notebook(tmp_path / "talk.ipynb", code(cell))
    log = tmp_path / "talk.log"
    with ThreadPoolExecutor() as pool:
        seen = pool.submit(_when_it_says, log, "SAID")
        execution.execute(notebook, {}, tmp_path / "out.ipynb", log=log)
    said = float(log.read_text().split("SAID")[1].split()[0])
    assert seen.result() - said < 2


def _when_it_says(log: Path, word: str) -> float:
    while not (log.exists() and word in log.read_text()):
        time.sleep(0.05)
    return time.time()


def test_a_flood_of_text_is_cut_in_the_notebook_and_in_the_log(tmp_path):
    flood = code("for _ in range(100): print('x' * 1_000_000)")
    notebook = write_notebook(tmp_path / "flood.ipynb", flood, code("print('AFTERWARDS')"))
    ipynb, log = tmp_path / "out.ipynb", tmp_path / "out.log"
    execution.execute(notebook, {}, ipynb, log=log)
    assert ipynb.stat().st_size < 3_000_000
    assert log.stat().st_size < 12_000_000
    assert "what follows was cut" in ipynb.read_text()
    assert "AFTERWARDS" in ipynb.read_text()


def test_secrets_of_the_environment_are_in_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOUSING_TEST_TOKEN", "canary-in-a-token")
    monkeypatch.setenv("SOME_STORE", "postgresql://me:canary-in-an-address@host/db")
    leaks = (
        code("import os; print(dict(os.environ))"),
        code("raise KeyError(str(dict(os.environ)))"),
    )
    notebook = write_notebook(tmp_path / "leak.ipynb", *leaks)
    with pytest.raises(execution.StepFailedError):
        execution.execute(
            notebook, {}, tmp_path / "out" / "a.ipynb", log=tmp_path / "out" / "a.log"
        )
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"canary" not in kept
    assert kept.count(privacy.HIDDEN.encode()) >= 4


def test_provenance_is_in_the_metadata(tmp_path):
    notebook = write_notebook(tmp_path / "small.ipynb", code("1"))
    execution.execute(notebook, {}, tmp_path / "out.ipynb", provenance={"commit": "abc"})
    assert json.loads((tmp_path / "out.ipynb").read_text())["metadata"]["housing"] == {
        "commit": "abc"
    }


def test_words_are_renewed_and_outputs_stay(tmp_path):
    given = code("n: int = 1", "parameters"), code("print('RAN WITH', n)")
    old = write_notebook(tmp_path / "a.ipynb", v4.new_markdown_cell("# Old"), *given)
    execution.execute(old, {"n": 7}, tmp_path / "ran.ipynb")
    more = v4.new_markdown_cell("# New"), given[0], v4.new_markdown_cell("More"), given[1]
    execution.renew_words(
        tmp_path / "ran.ipynb", write_notebook(old, *more), tmp_path / "new.ipynb"
    )
    cells = nbformat.read(tmp_path / "new.ipynb", as_version=4).cells
    assert [cell.source for cell in cells if cell.cell_type == "markdown"] == ["# New", "More"]
    assert "n = 7" in cells[2].source
    assert cells[-1].outputs[0].text == "RAN WITH 7\n"


def test_a_process_ends_with_all_that_descends_from_it():
    mark = "import time; time.sleep(62.5)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {mark!r}])"
    parent = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    while not children_named(mark):
        time.sleep(0.05)
    processes.kill_tree(parent.pid)
    parent.wait()
    psutil.wait_procs(children_named(mark), timeout=5)  # who is killed takes a moment to end
    assert not children_named(mark)
