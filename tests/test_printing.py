"""Printing: what is said where no browser is, or where one writes nothing."""

import pytest

from housing_lib import printing


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "index.html"
    path.write_text("<title>A page</title>")
    return path


def install(folder, script: str, monkeypatch) -> None:
    """Let `chromium` be a script, and the only program on the PATH."""
    browser = folder / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text(f"#!/bin/sh\n{script}\n")
    browser.chmod(0o755)
    monkeypatch.setenv("PATH", str(browser.parent))


def test_without_a_browser_nothing_is_written_and_the_way_to_one_is_named(page, monkeypatch):
    monkeypatch.setenv("PATH", str(page.parent))
    with pytest.raises(printing.PrintingError, match=r"apt-get install chromium.*No PDF"):
        printing.print_pdf(page, page.with_suffix(".pdf"))
    assert not page.with_suffix(".pdf").exists()


@pytest.mark.parametrize("script", ["exit 0", "exit 1"])
def test_a_browser_that_writes_nothing_leaves_the_pdf_of_before(page, monkeypatch, script):
    pdf = page.with_suffix(".pdf")
    pdf.write_text("before")
    install(page.parent, script, monkeypatch)
    with pytest.raises(printing.PrintingError, match=r"wrote no PDF.*index.pdf was not changed"):
        printing.print_pdf(page, pdf)
    assert pdf.read_text() == "before"


def test_a_browser_that_hangs_is_stopped(page, monkeypatch):
    install(page.parent, "while :; do :; done", monkeypatch)
    monkeypatch.setattr(printing, "TIMEOUT_S", 0.2)
    with pytest.raises(printing.PrintingError, match=r"more than 0\.2 seconds"):
        printing.print_pdf(page, page.with_suffix(".pdf"))
