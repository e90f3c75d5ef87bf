"""Widgets whose code comes when it is wanted: from files, as a reader opens the book."""

import re

import pytest

LANDING, LAB = "book/index.html", "notebooks/10_full_implementation.html"
REQUESTED = re.compile(r"_static/dpo-(?:module|live)")
MOUNTED = "[data-dpo-widget='{}'][data-dpo-mounted]"


class Asked:
    """The files of widgets that a page asks for, and what goes wrong on it."""

    def __init__(self):
        self.files, self.faults = [], []

    def __call__(self, page):
        page.on("request", lambda request: self.files.append(request.url))
        page.on("console", self.on_console)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def on_console(self, message):
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def later(self):
        return [url for url in self.files if REQUESTED.search(url)]


@pytest.fixture
def asked():
    asked = Asked()
    yield asked
    assert asked.faults == []


def test_code_comes_when_the_reader_comes_near(open_page, asked):
    page = open_page(LAB, prepare=asked)
    assert asked.later() == []
    page.locator("[data-dpo-widget=train_it_yourself]").first.scroll_into_view_if_needed()
    page.locator(MOUNTED.format("train_it_yourself")).first.wait_for()
    names = [url.rsplit("/", 1)[1] for url in asked.later()]
    assert "dpo-module_widgets_train_it_yourself.js" in names
    assert "dpo-module_plot.js" not in names  # another widget of the page has brought it
    assert page.evaluate("Object.keys(dpoBook.parts ?? {})") == []  # the model is not yet asked for


def test_a_preview_looks_like_the_widget(open_page, asked):
    page = open_page(LANDING, prepare=asked)
    page.evaluate("window.shown = document.querySelector('.dpo-preview').firstElementChild")
    box = "JSON.stringify(document.querySelector('.dpo-widget').getBoundingClientRect())"
    before = page.evaluate(box)
    page.evaluate("dpoBook.bring()")
    assert page.evaluate("document.querySelector('.dpo-widget') !== window.shown")
    assert page.evaluate("document.querySelector('.dpo-widget').isEqualNode(window.shown)")
    assert page.evaluate(box) == before


@pytest.mark.parametrize("touch", [False, True])
def test_the_click_that_brings_the_widget_counts(browser, site, asked, touch):
    context = browser.new_context(has_touch=touch)
    page = context.new_page()
    asked(page)
    page.goto(site["file"] + LANDING)
    assert asked.later() == []
    card = page.get_by_role("button", name="Lima is the capital of Peru.")
    (card.tap if touch else card.click)()
    page.locator(MOUNTED.format("three_clicks")).wait_for()
    page.locator(".dpo-choice[aria-pressed=true]", has_text="Lima").wait_for()
    context.close()


def test_the_keyboard_keeps_its_place(open_page, asked):
    page = open_page(LANDING, prepare=asked)
    page.get_by_role("button", name="That is not my problem.").focus()
    page.keyboard.press("Enter")
    page.locator(".dpo-choice[aria-pressed=true]", has_text="not my problem").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "That is not my problem."
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "I do not know."


def test_a_file_that_is_missing_is_named_and_loaded_at_the_next_try(open_page):
    missing = "**/dpo-module_ui.js"  # other modules run without it, in vain

    def without(page):
        page.route(missing, lambda route: route.abort())

    page = open_page(LANDING, "http", without)
    card = page.get_by_role("button", name="Lima is the capital of Peru.")
    card.click()
    said = page.locator(".dpo-fallback")
    again = said.get_by_role("button", name="Try again")
    again.wait_for()
    first = again.element_handle()
    again.click()
    page.wait_for_function("button => !button.isConnected", arg=first)
    again.wait_for()
    assert said.text_content().count("The file dpo-module_ui.js of this book could not be") == 1
    page.unroute(missing)
    again.click()
    page.locator(MOUNTED.format("three_clicks")).wait_for()
    page.locator(".dpo-choice[aria-pressed=true]", has_text="Lima").wait_for()
