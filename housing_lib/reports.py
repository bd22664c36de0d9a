"""The door to nbconvert: what a notebook recorded, and its standalone `.html`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_lib.files import atomic_path
from housing_lib.parameters import cells_of
from housing_lib.settings import HousingError

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"
RECORD = "application/vnd.housing.result+json"
ERROR_MARKER = "papermill-error-cell-tag"


class ReportError(HousingError):
    """A result that cannot be kept, or was not."""


@dataclass(frozen=True)
class Link:
    """One section of a page, for its table of contents."""

    anchor: str
    title: str


def record(**values: Any) -> None:
    """Show `values` as the result of this notebook, where a run and the tests read them.

    Raises
    ------
    ReportError
        If a value has no place in JSON: an object, or a number that is not finite.
    """
    from IPython.display import display

    try:
        plain = json.loads(json.dumps(values, default=_plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ReportError(
            f"record() takes text, finite numbers, lists and dictionaries of them: {error}. "
            "Nothing was recorded."
        ) from error
    text = "\n".join(f"{name}: {value}" for name, value in plain.items())
    display({RECORD: plain, "text/plain": text}, raw=True)  # type: ignore[no-untyped-call]


def _plain(value: Any) -> Any:
    """The Python number or list that a numpy or pandas value stands for."""
    if not hasattr(value, "tolist"):
        raise TypeError(f"found a value of type {type(value).__name__}")
    return value.tolist()


def read_record(path: Path) -> dict[str, Any]:
    """The values that an executed notebook recorded, by its last `record()`.

    Raises
    ------
    ReportError
        If it recorded nothing, or cannot be read.
    """
    outputs = [output for cell in cells_of(path) for output in cell.get("outputs", [])]
    records = [output["data"][RECORD] for output in outputs if RECORD in output.get("data", {})]
    if not records:
        raise ReportError(
            f"{path.name} recorded nothing. Its last cell should call `record(...)` "
            "from `housing_lib.reports`, and should have run."
        )
    return dict(records[-1])


def render(
    ipynb: Path, html: Path, *, provenance: Mapping[str, str], failed: str | None = None
) -> None:
    """Write an executed notebook as one HTML file that asks nothing of any network.

    `provenance` stands in its foot. With `failed`, the error stands at its
    head, and what the notebook wrote to stderr is shown as well.
    """
    import nbformat
    from nbconvert import HTMLExporter

    book: NotebookNode = nbformat.read(ipynb, as_version=4)  # type: ignore[no-untyped-call]
    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        config=_exporter_config(),
        template_name="housing",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={"contents": _contents},
    )
    shown = {"provenance": dict(provenance), "failed": failed, "title": _title(book, ipynb)}
    page, _ = exporter.from_notebook_node(_for_reading(book, failed), resources=shown)
    with atomic_path(html) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _exporter_config() -> Any:
    from traitlets.config import Config

    tags = {
        "enabled": True,
        "remove_cell_tags": {"remove-cell", "injected-parameters", ERROR_MARKER},
        "remove_all_outputs_tags": {"hide-output"},
        "remove_input_tags": {"hide-input"},
    }
    exporter = {"exclude_output_prompt": True, "embed_images": True, "anchor_link_text": "#"}
    return Config({"TagRemovePreprocessor": tags, "HTMLExporter": exporter})


def _for_reading(book: "NotebookNode", failed: str | None) -> "NotebookNode":
    """The notebook without what only machines read."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if _is_for_readers(o, failed)]
    return book


def _is_for_readers(output: "NotebookNode", failed: str | None) -> bool:
    if output.output_type == "stream" and output.name == "stderr":
        return failed is not None
    return RECORD not in output.get("data", {})


def _title(book: "NotebookNode", ipynb: Path) -> str:
    """The notebook's first heading, or its file name."""
    texts = (cell.source for cell in book.cells if cell.cell_type == "markdown")
    found = (re.search(r"^#\s+(.+)$", text, flags=re.MULTILINE) for text in texts)
    return next((re.sub(r"[`*]", "", match[1]) for match in found if match), ipynb.stem)


def _contents(body: str) -> list[Link]:
    """The second-level headings of a rendered notebook, in order."""
    found = re.findall(r'<h2 id="([^"]+)">(.*?)<a class="anchor-link"', body, flags=re.DOTALL)
    return [Link(anchor, re.sub(r"<[^>]+>", "", title).strip()) for anchor, title in found]
