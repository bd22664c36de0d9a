"""Every page of a real run in a real browser: alone, accessible, readable, and true."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from nbformat import v4
from playwright.sync_api import Browser, ElementHandle, Page, sync_playwright

from housing_lib import execution, pages, printing, rendering, tracking
from housing_lib.summary import apart, dollars

WIDTHS = (360, 820, 1600)
A4_PIXELS = 673  # the width of A4 within the margins of the print style
MOST_BYTES = 3_000_000
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium)
        yield started
        started.close()


@pytest.fixture(scope="module")
def paths(smoke, tmp_path_factory) -> list[Path]:
    """All pages of the smoke run and of a failed one beside it; the page of all runs first."""
    folder = tmp_path_factory.mktemp("site") / "reports"
    shutil.copytree(smoke.folder, folder / smoke.folder.name)
    _write_failed_run(smoke.record, folder / "failed")
    first = pages.write_overview(folder)
    return [
        first,
        *sorted(folder.glob(f"{smoke.folder.name}/*.html")),
        *folder.glob("failed/*.html"),
    ]


def _write_failed_run(run: dict, folder: Path) -> None:
    notebook, ipynb = folder.parent / "01_eda.ipynb", folder / "01_eda.ipynb"
    cells = [v4.new_markdown_cell("# Why?\n## Division"), v4.new_code_cell("1 / 0")]
    nbformat.write(v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), notebook)
    with pytest.raises(execution.StepFailedError) as error:
        execution.execute(notebook, {}, ipynb)
    reason = str(error.value)
    rendering.render(ipynb, ipynb.with_suffix(".html"), provenance={}, failed=reason)
    told = {"state": "failed", "reason": reason, "report": "01_eda.html"}
    steps = [run["steps"][0] | told, run["steps"][1] | {"state": "skipped", "report": None}]
    failed = run | {"id": "failed", "state": "failed", "champion": None, "leaderboard": []}
    failed |= {"steps": steps}
    (folder / "run.json").write_text(json.dumps(failed))
    pages.write_index(failed, folder)


@pytest.fixture(params=[True, False], ids=["with scripts", "without scripts"])
def tab(browser, request) -> Iterator[Page]:
    """A tab without network, with or without JavaScript."""
    yield from _open_tab(browser, scripts=request.param)


@pytest.fixture
def scripted(browser) -> Iterator[Page]:
    """A tab without network, with JavaScript."""
    yield from _open_tab(browser, scripts=True)


def _open_tab(browser: Browser, *, scripts: bool) -> Iterator[Page]:
    context = browser.new_context(offline=True, java_script_enabled=scripts)
    yield context.new_page()
    context.close()


def test_no_page_asks_for_anything_or_complains(tab, paths):
    heard: list[str] = []
    tab.on("request", lambda request: heard.append(request.url))
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    for path in paths:
        tab.goto(path.as_uri())
    own = {path.as_uri() for path in paths}
    assert [one for one in heard if one not in own and not one.startswith("data:")] == []


def test_every_page_can_be_mailed(paths):
    assert len(paths) == 16
    for path in paths:
        assert path.stat().st_size < MOST_BYTES, path.name


def test_every_page_fits_a_phone_a_tablet_and_a_wide_screen_in_light_and_dark(tab, paths):
    grounds = set()
    for path in paths:
        tab.goto(path.as_uri())
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            grounds.add(tab.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
            for width in WIDTHS:
                tab.set_viewport_size({"width": width, "height": 900})
                assert tab.locator("html").evaluate(f"() => {OVERFLOW}") <= 0, (path.name, width)
    assert len(grounds) == 2


def test_every_page_fits_a4(scripted, paths):
    scripted.emulate_media(media="print")
    scripted.set_viewport_size({"width": A4_PIXELS, "height": 900})
    for path in paths:
        scripted.goto(path.as_uri())
        assert scripted.evaluate(OVERFLOW) <= 0, path.name


def test_axe_finds_nothing_wrong_with_any_page(scripted, paths):
    assert _faults(scripted, paths, options={"resultTypes": ["violations"]}) == []


def test_axe_finds_no_poor_contrast_in_the_dark_on_any_kind_of_page(scripted, paths):
    kinds = {(path.parent, path.stem.partition("-")[0]): path for path in paths}
    scripted.emulate_media(color_scheme="dark")
    assert _faults(scripted, kinds.values(), options={"runOnly": ["color-contrast"]}) == []


def _faults(tab: Page, paths: Iterable[Path], *, options: dict) -> list[tuple[str, str, str]]:
    """What axe finds on pages whose code is shown: the page, the rule, and where."""
    found = []
    for path in paths:
        tab.goto(path.as_uri())
        if tab.locator("#show-code").count():
            tab.locator("#show-code").check()
        for fault in Axe().run(tab, options=options).response["violations"]:
            found.append((path.name, fault["id"], fault["nodes"][0]["html"][:200]))
    return found


def test_code_is_hidden_until_the_toggle_of_the_page_is_set(tab, paths):
    for path in paths:
        tab.goto(path.as_uri())
        if not tab.locator("#show-code").count():
            continue
        cells = tab.locator(".input")
        assert not cells.first.is_visible(), path.name
        tab.locator("#show-code").check()
        assert cells.first.is_visible(), path.name


def test_contents_lead_to_every_section(scripted, paths):
    scripted.goto(next(path for path in paths if path.name == "04_evaluation.html").as_uri())
    entries = scripted.locator("nav.contents a")
    assert entries.count() == scripted.locator("main h2").count() > 5
    for entry in entries.all():
        entry.click()
        section = _section(scripted, entry.get_attribute("href"))
        assert section.inner_text().startswith(entry.inner_text())
        scripted.wait_for_function("e => e.getBoundingClientRect().top < innerHeight", arg=section)


def _section(page: Page, address: str) -> ElementHandle | None:
    name = unquote(urlparse(address).fragment)
    return page.evaluate_handle("name => document.getElementById(name)", name).as_element()


def test_every_link_leads_to_a_file_or_a_section_that_exists(scripted, paths):
    for path in paths:
        scripted.goto(path.as_uri())
        for address in scripted.eval_on_selector_all("a", "all => all.map(a => a.href)"):
            target = urlparse(address)
            assert target.scheme == "file", address
            assert Path(unquote(target.path)).is_file(), (path.name, address)
            if target.fragment and target.path == urlparse(path.as_uri()).path:
                assert _section(scripted, address), (path.name, address)


def test_every_figure_is_there_is_sharp_and_says_what_is_seen(scripted, paths):
    figures = 0
    for path in paths:
        scripted.goto(path.as_uri())
        for image in scripted.locator("main img").all():
            figures += 1
            assert len(image.get_attribute("alt") or "") > 20, path.name
            assert image.evaluate("i => i.naturalWidth >= 2 * i.width - 2"), path.name
        for drawing in scripted.locator("main svg").all():
            assert len(drawing.get_attribute("aria-label") or "") > 20, path.name
    assert figures > 40


def test_every_table_can_be_sorted_and_copied_whole(scripted, paths):
    tables = 0
    for path in paths:
        scripted.goto(path.as_uri())
        for table in scripted.locator(".scroll > table").all():
            tables += 1
            widths = table.evaluate("t => [...t.rows].map(row => row.cells.length)")
            assert len(set(widths)) == 1, path.name
            assert len(widths) < 3 or table.locator("thead th button").count(), path.name
    assert tables > 40


def test_a_table_is_sorted_by_the_column_that_is_pressed(scripted, paths):
    scripted.goto(_index(paths).as_uri())
    name = scripted.locator(".board thead th").nth(3)
    cells = scripted.locator(".board tbody td:nth-child(4)")
    for order, shown in (("ascending", sorted), ("descending", lambda v: sorted(v)[::-1])):
        name.locator("button").click()
        values = [float(cell.get_attribute("data-sort")) for cell in cells.all()]
        assert name.get_attribute("aria-sort") == order
        assert values == shown(values)
        assert len(set(values)) > 2


def test_a_table_is_copied_as_text_that_a_spreadsheet_takes(scripted, paths):
    scripted.context.grant_permissions(["clipboard-read", "clipboard-write"])
    scripted.goto(_index(paths).as_uri())
    scripted.locator(".board").locator("xpath=../following-sibling::button[1]").click()
    scripted.get_by_text("Copied").wait_for()
    rows = scripted.evaluate("navigator.clipboard.readText()").splitlines()
    assert rows[0].split("\t")[0] == "Model"
    assert len(rows) == 9
    assert {len(row.split("\t")) for row in rows} == {5}
    for row in rows[1:]:
        assert all(re.fullmatch(r"\$[\d,]+", cell) for cell in row.split("\t")[1:4])


def test_every_dollar_on_the_index_page_stands_in_the_record_of_the_run(scripted, paths, smoke):
    scripted.goto(_index(paths).as_uri())
    scripted.evaluate("document.querySelectorAll('.maps, footer').forEach(e => e.remove())")
    shown = set(re.findall(r"−?\$\d+(?:,\d{3})*", scripted.locator("main").inner_text()))
    champion, board = smoke.record["champion"], smoke.record["leaderboard"]
    linear = min(row["val_rmse"] for row in board if row["linear"])
    known = {dollars(value) for value in _numbers(smoke.record)}
    known |= {dollars(champion["runner_up"]["val_rmse_gain_usd"] / 100_000)}
    known |= {dollars(apart(linear, champion["metrics"]["val_rmse"]))}
    assert len(shown) > 20
    assert shown <= known
    text = scripted.locator("main").inner_text()
    percents = set(re.findall(r"\d+(?:\.\d)?(?= %)", text)) - {"90", "95"}  # kinds of intervals
    assert len(percents) == 3
    numbers = list(_numbers(smoke.record))
    assert percents <= {f"{100 * one:.{digits}f}" for one in numbers for digits in (0, 1)}
    explained = set(re.findall(r"(?<![\d.])0\.\d{3}", text))
    assert explained == {f"{row['test_r2']:.3f}" for row in board}
    for row in board:
        assert row["test_rmse_low"] < row["test_rmse"] < row["test_rmse_high"]
        assert dollars(row["test_rmse_high"]) in shown


def test_the_verdict_is_that_of_mlflow(scripted, paths, smoke_store):
    scripted.goto(_index(paths).as_uri())
    logged = tracking.test_metrics(smoke_store.record["champion"]["run_id"])
    assert dollars(logged["test_mae"]) in scripted.locator("h1").inner_text()
    assert dollars(logged["test_rmse"]) in scripted.locator(".figures").inner_text()


def test_the_page_of_a_notebook_is_attached_to_its_run_in_mlflow(smoke_store):
    for step in smoke_store.record["steps"]:
        if "mlflow_run" in step["record"]:
            attached = tracking.client().list_artifacts(step["record"]["mlflow_run"], "report")
            assert [file.path for file in attached] == [f"report/{step['report']}"]


def test_a_report_is_printed_on_a4(browser, paths):
    pdf = _index(paths).with_suffix(".pdf")
    printing.print_pdf(_index(paths), pdf)
    assert 2 <= _sheets_of_a4(pdf) <= 6


def test_a_run_is_printed_page_by_page(browser, paths, housing):
    done = housing(paths[0].parent.parent, "report", "failed", "--pdf")
    assert done.returncode == 0, done.stderr
    printed = {pdf.name: _sheets_of_a4(pdf) for pdf in paths[0].parent.glob("failed/*.pdf")}
    assert set(printed) == {"index.pdf", "01_eda.pdf"}
    assert min(printed.values()) >= 1


def _sheets_of_a4(pdf: Path) -> int:
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    width, height = map(float, re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content).groups())
    assert (round(width), round(height)) == (595, 842)
    return content.count(b"/Type /Page\n")


def _index(paths: list[Path]) -> Path:
    return next(path for path in paths[1:] if path.name == "index.html")


def _numbers(value: object) -> Iterator[float]:
    """All numbers in a record, however deep."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner)
