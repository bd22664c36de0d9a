"""A person tries the model on the server's page, in a real browser."""

import re

import pytest
from playwright.sync_api import expect, sync_playwright
from serving import running_server

MONEY = re.compile(r"^\$[\d,]{6,}$")
expect.set_options(timeout=20_000)  # a busy machine is no fault of the page


@pytest.fixture(scope="module")
def browser(chromium):
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=chromium, args=options)
        yield started
        started.close()


@pytest.fixture
def page(server, browser):
    """The page with a first price, and afterwards the proof that nothing went wrong on it."""
    opened = browser.new_page(viewport={"width": 1280, "height": 860})
    wrong, asked = [], []
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(str(server.base_url))
    expect(opened.locator("#price")).to_have_text(MONEY)
    yield opened
    assert not wrong
    assert all(url.startswith(str(server.base_url).rstrip("/")) for url in asked)
    opened.close()


def price(page):
    """The price that is shown."""
    return page.locator("#price").text_content()


def test_the_page_begins_with_the_nearest_districts_values_and_explains_the_price(page):
    expect(page.locator("#MedInc")).not_to_have_value("")
    expect(page.locator("#drivers tr")).to_have_count(8)  # typical, five, others, sum
    expect(page.locator("#drivers tr.sum td").last).to_have_text(price(page))
    expect(page.locator("#near")).to_contain_text("learned from is")


def test_a_click_on_the_map_brings_another_places_values(page):
    before, income = page.locator("#place").text_content(), page.locator("#MedInc").input_value()
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.22, box["y"] + box["height"] * 0.45)
    expect(page.locator("#place")).not_to_have_text(before)
    expect(page.locator("#MedInc")).not_to_have_value(income)


def test_the_keyboard_alone_moves_the_place_and_changes_the_district(page):
    page.locator("#map").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator("#place")).to_have_text("37.87° north, 122.25° west")
    page.keyboard.press("Tab")
    expect(page.locator("#MedInc")).to_be_focused()


def test_more_income_changes_the_price_and_back_brings_it_back(page):
    first = price(page)
    page.locator("#MedInc").fill("12")
    expect(page.locator("#price")).not_to_have_text(first)
    expect(page.locator("#MedInc-slider")).to_have_value("12")
    page.locator("#reset").click()
    expect(page.locator("#price")).to_have_text(first)


def test_an_empty_field_is_imputed_and_said_so(page):
    page.locator("#Population").fill("")
    expect(page.locator("#flags")).to_contain_text("People is unknown; a typical value was taken.")


def test_it_fits_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    widths = page.locator("html").evaluate("page => [page.scrollWidth, page.clientWidth]")
    assert widths[0] <= widths[1]
    expect(page.locator("#price")).to_be_in_viewport()


def test_the_page_says_when_a_value_is_out_of_range_and_when_the_server_is_away(
    store, browser, tmp_path
):
    with running_server(store.root, tmp_path / "server.log") as server:
        page = browser.new_page()
        page.goto(str(server.base_url))
        expect(page.locator("#price")).to_have_text(MONEY)
        page.set_viewport_size({"width": 360, "height": 740})
        page.locator("#MedInc").fill("99")
        expect(page.get_by_role("alert")).to_contain_text("Median income: above 20; expected")
        expect(page.get_by_role("alert")).to_be_in_viewport()
        page.locator("#MedInc").fill("3")
        expect(page.get_by_role("alert")).to_be_hidden()
    page.locator("#MedInc").fill("4")
    expect(page.get_by_role("alert")).to_contain_text("The server is away")
    page.close()
