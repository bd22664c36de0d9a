"""The page of a notebook: one file that asks nothing of any network, for readers."""

from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from housing_lib import execution, rendering

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
CELLS = {
    "figure": """\
import sys
from IPython.display import display
import matplotlib.pyplot as plt
import pandas as pd
from housing_lib.reports import record
print("ON_" + "STDERR", file=sys.stderr)
figure, axes = plt.subplots(figsize=(2, 1))
display(figure, metadata={"image/png": {"alt": 'A "flat" line'}})""",
    "plot": "plt.plot([1, 2]);",
    "table": "pd.DataFrame({'price': [1.5]})",
    "hidden": "print('OUTPUT_' + 'HIDDEN')",
    "removed": "print('CELL_REMOVED')",
    "record": "record(rmse=0.4, trials=n_trials)",
}
TAGS = {"hidden": ["hide-output"], "removed": ["remove-cell"]}


def page_of(cells: list[Any], folder: Path, *, parameters: dict[str, Any]) -> BeautifulSoup:
    """The page of a notebook that was really executed, whole or failed."""
    notebook, ipynb = folder / "02_small.ipynb", folder / "out" / "02_small.ipynb"
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), notebook)
    failed = None
    try:
        execution.execute(notebook, parameters, ipynb)
    except execution.StepFailedError as error:
        failed = str(error)
    html = ipynb.with_suffix(".html")
    rendering.render(ipynb, html, provenance={"commit": "<abc>"}, failed=failed)
    return BeautifulSoup(html.read_text(), "html.parser")


def loads(page: BeautifulSoup) -> list[str]:
    """The addresses that a browser would fetch for a page."""
    named = page.select("[src], [srcset], [data], link[href]")
    found = [tag.get(name) for tag in named for name in ("src", "srcset", "data", "href")]
    styles = [word for word in ("@import", "url(") if word in str(page.style)]
    return [str(address) for address in found if address and "data:" not in str(address)] + styles


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    code = [
        v4.new_code_cell(source, metadata={"tags": TAGS.get(name, [])})
        for name, source in CELLS.items()
    ]
    words = [v4.new_markdown_cell(text) for text in ("# What is `small`?", "## The *data*")]
    known = v4.new_code_cell("n_trials: int = 5  # how many", metadata={"tags": ["parameters"]})
    end = v4.new_markdown_cell("## The end")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        cells = [words[0], known, words[1], *code[:-1], end, code[-1]]
        return page_of(cells, tmp_path_factory.mktemp("run"), parameters={"n_trials": 7})


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    first = "import sys, tqdm.auto; print('ON_' + 'STDERR', file=sys.stderr)"
    code = [v4.new_code_cell(source) for source in (first, "1 / 0", "print('NEVER')")]
    heading = v4.new_markdown_cell("## Division")
    return page_of([heading, *code], tmp_path_factory.mktemp("failed"), parameters={})


def test_a_page_of_a_notebook_loads_nothing_from_anywhere(page, failed):
    assert loads(page) == loads(failed) == []
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")
    assert policy["content"].startswith("default-src 'none'")


def test_figures_survive_another_back_end_and_keep_their_alt_text(page):
    images = page.select("main img")
    assert len(images) == 3
    assert images[0]["alt"] == 'A "flat" line'


def test_a_page_shows_what_readers_need_and_nothing_only_machines_read(page):
    assert len(page.select("table")) == 1
    for hidden in ("OUTPUT_HIDDEN", "ON_STDERR", "CELL_REMOVED", "rmse: 0.4"):
        assert hidden not in page.main.get_text()


def test_folded_code_shows_the_parameters_that_were_given_after_the_defaults(page):
    first, second = [code.get_text() for code in page.select(".input")][:2]
    assert "n_trials: int = 5" in first
    assert "n_trials = 7" in second


def test_a_page_has_contents_anchors_a_way_home_a_toggle_and_provenance(page):
    contents = [link["href"] for link in page.select("nav.contents a")]
    assert contents == ["#The-data", "#The-end"]
    assert [heading["id"] for heading in page.select("main h2")] == ["The-data", "The-end"]
    assert page.select_one("header a")["href"] == "index.html"
    assert page.select_one("#show-code")
    assert page.title.get_text() == "What is small? · Housing"
    assert "<abc>" in page.footer.get_text()


def test_a_table_scrolls_in_a_box_that_a_keyboard_reaches_and_a_reader_names(page):
    frame = page.table.parent
    assert (frame["tabindex"], frame["role"]) == ("0", "region")
    assert frame["aria-label"] == "Table 1: The data"
    assert [name["scope"] for name in page.table.select("th")] == ["col", "row"]


def test_names_of_rows_stand_beside_those_of_columns_and_words_on_the_left():
    cities = pd.DataFrame(
        {"city": ["Fresno", "Eureka"], "price": [1, 2]}, index=pd.Index([7, 8], name="row")
    )
    for html in (cities.to_html(), cities.style.to_html()):
        table = BeautifulSoup(rendering.accessible(html), "html.parser")
        (names,) = table.select("thead tr")
        assert list(names.stripped_strings) == ["row", "city", "price"]
        _, city, price = table.select_one("tbody tr").find_all(["th", "td"])
        assert "text" in city["class"]
        assert "text" not in price.get_attribute_list("class")


def test_a_failed_page_says_so_first_with_the_error_and_the_cell_it_stopped_in(failed):
    banner = failed.select_one("[role=alert]")
    assert failed.title.get_text().startswith("FAILED · ")
    assert banner.find_previous("main") is None
    assert banner.h2.get_text() == "FAILED"
    first, second = (block.get_text() for block in banner.select("pre"))
    assert "ZeroDivisionError: division by zero" in first
    assert second.strip() == "1 / 0"
    assert failed.select_one(banner.a["href"])


def test_a_failed_page_shows_stderr_and_no_missing_widget(failed):
    assert "ON_STDERR" in failed.get_text()
    assert "IProgress" not in failed.get_text()


def test_a_page_names_files_and_not_the_folders_of_a_machine(tmp_path):
    where, ipynb = "/home/ann/grown/districts.parquet", tmp_path / "01_small.ipynb"
    given = v4.new_code_cell(f'source = "{where}"', metadata={"tags": ["injected-parameters"]})
    nbformat.write(v4.new_notebook(cells=[given]), ipynb)
    rendering.render(ipynb, ipynb.with_suffix(".html"), provenance={"source": where})
    page = ipynb.with_suffix(".html").read_text()
    assert "districts.parquet" in page
    assert "/home/ann" not in page
