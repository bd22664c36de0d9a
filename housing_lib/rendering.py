"""The door to nbconvert: an executed notebook -> one page that asks nothing of any network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housing_lib.files import atomic_path
from housing_lib.privacy import without_folders
from housing_lib.reports import ERROR_MARKER, RECORD

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbformat import NotebookNode

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Link:
    """One section of a page, for its table of contents."""

    anchor: str
    title: str


def render(
    ipynb: Path, html: Path, *, provenance: Mapping[str, str], failed: str | None = None
) -> None:
    """Write an executed notebook as one HTML file that asks nothing of any network.

    `provenance` stands in its foot. With `failed`, the error and the cell that
    raised it stand at its head, and what the notebook wrote to stderr is shown
    as well.
    """
    import nbformat
    from nbconvert import HTMLExporter

    book: NotebookNode = nbformat.read(ipynb, as_version=4)  # type: ignore[no-untyped-call]
    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        config=_exporter_config(),
        template_name="housing",
        extra_template_basedirs=[str(TEMPLATES)],
        filters={"contents": _contents, "accessible": accessible},
    )
    shown = {"provenance": _in_words(provenance), "failed": failed, "title": _title(book, ipynb)}
    shown |= {"step": step_title(ipynb), "failing_cell": _last_started(book) if failed else ""}
    page, _ = exporter.from_notebook_node(_for_reading(book, failed), resources=shown)
    with atomic_path(html) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _in_words(provenance: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", " "): without_folders(value) for name, value in provenance.items()}


def step_title(ipynb: Path) -> str:
    """The step that an executed notebook belongs to, as a person reads it.

    Examples
    --------
    >>> step_title(Path("03_tuning-random_forest.ipynb"))
    '03 tuning · random forest'
    """
    return ipynb.stem.replace("-", " · ").replace("_", " ")


def _exporter_config() -> Any:
    from traitlets.config import Config

    tags = {
        "enabled": True,
        "remove_cell_tags": {"remove-cell", ERROR_MARKER},
        "remove_all_outputs_tags": {"hide-output"},
        "remove_input_tags": {"hide-input"},
    }
    exporter = {"exclude_output_prompt": True, "embed_images": True, "anchor_link_text": "#"}
    return Config({"TagRemovePreprocessor": tags, "HTMLExporter": exporter})


def _last_started(book: "NotebookNode") -> str:
    """The code of the last cell that papermill started: the one that failed."""
    started = [
        cell.source
        for cell in book.cells
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return started[-1] if started else ""


def _for_reading(book: "NotebookNode", failed: str | None) -> "NotebookNode":
    """The notebook without what only machines read."""
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if _is_for_readers(o, failed)]
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = without_folders(cell.source)
    return book


def _is_for_readers(output: "NotebookNode", failed: str | None) -> bool:
    if output.output_type == "stream" and output.name == "stderr":
        return failed is not None
    return RECORD not in output.get("data", {})


def _title(book: "NotebookNode", ipynb: Path) -> str:
    """The notebook's first heading, with the variant that its file names; or that name."""
    texts = (cell.source for cell in book.cells if cell.cell_type == "markdown")
    found = (re.search(r"^#\s+(.+)$", text, flags=re.MULTILINE) for text in texts)
    heading = next((re.sub(r"[`*]", "", match[1]) for match in found if match), "")
    variant = step_title(ipynb).partition(" · ")[2]
    return " · ".join(filter(None, [heading, variant])) or ipynb.stem


def _contents(body: str) -> list[Link]:
    """The second-level headings of a rendered notebook, in order."""
    found = re.findall(r'<h2 id="([^"]+)">(.*?)<a [^>]*class="anchor-link"', body, flags=re.DOTALL)
    return [Link(anchor, re.sub(r"<[^>]+>", "", title).strip()) for anchor, title in found]


def accessible(body: str) -> str:
    """The body of a page, whose tables, figures and code a keyboard reaches."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(body, "html.parser")
    for number, table in enumerate(soup.find_all("table"), start=1):
        _frame_table(soup, table, number)
    for scrolled in soup.select("pre, .output_png"):
        scrolled["tabindex"] = "0"
    for link in soup.select("a.anchor-link"):
        link["aria-label"] = "link to this section"
    return str(soup)


def _frame_table(soup: "BeautifulSoup", table: "Tag", number: int) -> None:
    """Let a table scroll in a box of its own, named after the heading above it."""
    heading = table.find_previous(["h1", "h2", "h3"])
    words = heading.get_text().removesuffix("#") if heading else ""
    frame = soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "region"})
    frame["aria-label"] = f"Table {number}: {words}"
    table.wrap(frame)
    _join_headers(table)
    _align_words(table)
    for name in table.select("thead th"):
        name["scope"] = "col"
        if not name.get_text(strip=True):  # pandas leaves these above the names of rows
            name.name = "td"
            del name["scope"]
    for name in table.select("tbody th"):
        name["scope"] = "row"


def _join_headers(table: "Tag") -> None:
    """Let the names of rows stand beside those of columns; pandas writes them a line below."""
    lines = [line.find_all(["th", "td"], recursive=False) for line in table.select("thead tr")]
    if len(lines) != 2 or len(lines[0]) != len(lines[1]):
        return
    pairs = list(zip(*lines, strict=True))
    if all(bool(_words(above)) != bool(_words(below)) for above, below in pairs):
        for above, below in pairs:
            if _words(below):
                above.replace_with(below)
                below["class"] = ["text"]
        table.select("thead tr")[1].decompose()


def _align_words(table: "Tag") -> None:
    """Let columns of words stand on the left, as those of numbers do on the right."""
    lines = [line.find_all(["th", "td"], recursive=False) for line in table.select("tr")]
    if len({len(line) for line in lines}) != 1:
        return
    for name, *cells in zip(*lines, strict=True):
        if sum(_words(cell)[:1].isalpha() for cell in cells) > len(cells) / 2:
            for cell in (name, *cells):
                cell["class"] = [*cell.get_attribute_list("class"), "text"]


def _words(cell: "Tag") -> str:
    return cell.get_text(strip=True)
