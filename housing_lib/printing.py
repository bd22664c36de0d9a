"""The door to Chromium: pages as PDF."""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from housing_lib.errors import HousingError
from housing_lib.files import atomic_path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SILENT = (
    "--headless",
    "--no-sandbox",  # it opens our own pages, which may run as root in a container
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
)
TIMEOUT_S = 60


class PrintingError(HousingError):
    """A page that cannot be printed."""


def find_browser() -> str:
    """The path of an installed Chromium or Chrome.

    Raises
    ------
    PrintingError
        If there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        raise PrintingError(
            f"found no browser; expected one of {', '.join(BROWSERS)} on the PATH. Install one, "
            "for example by `apt-get install chromium`. No PDF was written."
        )
    return found


def print_pdf(page: Path, pdf: Path) -> None:
    """Write a page as PDF on A4, as its own style for paper says.

    Raises
    ------
    PrintingError
        If there is no browser, or it wrote nothing.
    """
    browser = find_browser()
    with TemporaryDirectory(prefix="housing-") as profile, atomic_path(pdf) as temporary:
        options = [f"--user-data-dir={profile}", f"--print-to-pdf={temporary}"]
        command = [browser, *SILENT, *options, page.resolve().as_uri()]
        _run(command, page)
        if not temporary.exists():
            raise PrintingError(
                f"{browser} wrote no PDF of {page}. Open the page in a browser and print it there. "
                f"{pdf.name} was not changed."
            )


def _run(command: list[str], page: Path) -> None:
    try:
        subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise PrintingError(
            f"{command[0]} needed more than {TIMEOUT_S} seconds to print {page}, and was stopped. "
            "Try again when the machine is less busy. Its PDF was not changed."
        ) from error
