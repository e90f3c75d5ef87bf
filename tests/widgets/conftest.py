"""A page with one widget in it, from file://, with no kernel and no network."""

import json

import pytest

from dpo_lib.widgets import join, live

STATUS_STARTS = "start => document.querySelector('.dpo-status').textContent.startsWith(start)"


def reopen_with(page, kept):
    """Open the page anew in a browser that has kept these values, by key, as JSON.

    The new page writes them before it runs: what the old one writes just before it goes may reach
    the process of the new one too late.
    """
    name = f"kept {json.dumps(kept)}"  # of the window, so that it is written once
    page.add_init_script(
        f"if (window.name !== {json.dumps(name)}) {{ window.name = {json.dumps(name)};"
        f" for (const [key, value] of Object.entries({json.dumps(kept)}))"
        " localStorage.setItem(key, JSON.stringify(value)); }"
    )
    page.reload()


class Opened:
    """A page with one widget that knows what it asked for and what went wrong on it."""

    def __init__(self, page, folder, cls, spec=None, **values):
        self.page, self.faults, self.requests = page, [], []
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        spec = (spec or cls.build_spec()).with_values(**values)
        (folder / "widget.js").write_text(join.static_script([spec.kind]), encoding="utf-8")
        for name in live.PARTS:
            text = live.part_script(name)
            (folder / live.part_file(name)).write_text(text, encoding="utf-8")
        self.file = folder / f"{spec.kind}.html"
        self.file.write_text(
            '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>t</title>'
            f"<style>{join.static_css()} body {{ margin: 0 }}</style></head><body>"
            f"{spec.to_html(cls.describe(spec.values))}"
            '<script src="widget.js"></script></body></html>',
            encoding="utf-8",
        )
        page.goto(self.file.as_uri())

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def status(self):
        return self.page.get_by_role("status").text_content()

    def wait_for(self, start, seconds=60):
        self.page.wait_for_function(STATUS_STARTS, arg=start, timeout=1000 * seconds)

    def loaded(self):
        """Names of the parts that the page has fetched."""
        names = {live.part_file(name): name for name in live.PARTS}
        return [names[u.rsplit("/", 1)[-1]] for u in self.requests if u.rsplit("/", 1)[-1] in names]

    def outside(self):
        return [u for u in self.requests if not u.startswith(("file:", "blob:", "data:"))]

    def keep(self, rows):
        """Keep rows in the browser as chapter 1 does, and open the page anew."""
        rows = [{"from": "annotator", **row} for row in rows]
        reopen_with(self.page, {"dpo-book-clicks": {"version": 1, "rows": rows}})

    def answers(self):
        rows = self.page.locator(".dpo-answers tbody tr").all()
        return [row.locator("td").all_text_contents() for row in rows]


@pytest.fixture
def open_widget(browser, tmp_path):
    context = browser.new_context(viewport={"width": 900, "height": 900})
    opened = []

    def open_one(cls, spec=None, **values):
        opened.append(Opened(context.new_page(), tmp_path, cls, spec, **values))
        return opened[-1]

    yield open_one
    for one in opened:
        assert one.faults == []
        assert one.outside() == []
    context.close()
