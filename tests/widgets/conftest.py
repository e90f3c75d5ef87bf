"""Pages with widgets in them, from file://, with no kernel and no network."""

import json

import pytest
import torch

from dpo_lib import widgets
from dpo_lib.models.checkpoints import load_sft
from dpo_lib.widgets import join, live
from tests.widgets.hurry import hurried

STATUS_STARTS = "start => document.querySelector('.dpo-status').textContent.startsWith(start)"


def write_page(file, body, *scripts, style=""):
    """Write a page with the widgets' style and these scripts, each a file of its own; its address.

    An empty one is left out. One inside the page may ask for storage before Chromium knows which
    page asks: now and then such a page from a file has a storage that no other page sees, and that
    goes with it.
    """
    files = {f"{file.stem}-{i}.js": text for i, text in enumerate(filter(None, scripts))}
    for name, text in files.items():
        (file.parent / name).write_text(text, encoding="utf-8")
    file.write_text(
        '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>t</title>'
        f"<style>{join.static_css()} {style}</style></head><body>{body}"
        + "".join(f'<script src="{name}"></script>' for name in files)
        + "</body></html>",
        encoding="utf-8",
    )
    return file.as_uri()


def reopen_with(page, kept):
    """Open the page anew in a browser that has kept these values, by key, as JSON."""
    page.evaluate(
        "kept => Object.entries(kept).forEach(([k, v]) => localStorage[k] = JSON.stringify(v))",
        kept,
    )
    page.reload()


class Opened:
    """A page of widgets that knows what it asked for and what went wrong on it."""

    def __init__(self, page, folder, *specs):
        self.page, self.faults, self.requests = page, [], []
        page.on("console", lambda message: self.faults.append(message.text))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        kinds = [spec.kind for spec in specs]
        for name in live.PARTS:
            text = live.part_script(name)
            (folder / live.part_file(name)).write_text(text, encoding="utf-8")
        classes = (getattr(widgets, widgets.class_name(kind)) for kind in kinds)
        body = "".join(cls.static_html(spec) for cls, spec in zip(classes, specs, strict=True))
        self.file = folder / f"{kinds[0]}.html"
        script = hurried(join.static_script(kinds))
        page.goto(write_page(self.file, body, script, style="body { margin: 0 }"))

    def press(self, name):
        self.page.get_by_role("button", name=name, exact=True).click()

    def status(self):
        return self.page.get_by_role("status").first.text_content()

    def tile(self, name):
        tile = self.page.locator(".dpo-tile", has_text=name)
        return tile.locator(".dpo-value").text_content()

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
        reopen_with(self.page, {"dpo-book-clicks": _as_kept(rows)})

    def put(self, rows):
        """The same, while the page is open."""
        kept = json.dumps(_as_kept(rows))
        self.page.evaluate("kept => localStorage.setItem('dpo-book-clicks', kept)", kept)

    def policy(self):
        """The policy trained last on the page."""
        weights = list(self.page.evaluate("Object.values(dpoBook.policy.weights)"))
        policy = load_sft()
        start = 0
        with torch.no_grad():
            for weight in policy.state_dict().values():
                part = weights[start : start + weight.numel()]
                weight.copy_(torch.tensor(part, dtype=torch.float64).view(weight.shape))
                start += weight.numel()
        assert start == len(weights)
        return policy

    def answers(self):
        rows = self.page.locator(".dpo-answers tbody tr").all()
        return [row.locator("td").all_text_contents() for row in rows]


def _as_kept(rows):
    return {"version": 1, "rows": [{"from": "annotator", **row} for row in rows]}


@pytest.fixture
def open_widget(browser, tmp_path):
    context = browser.new_context(viewport={"width": 900, "height": 900})
    opened = []

    def open_one(cls, spec=None, beside=(), **values):
        spec = (spec or cls.build_spec()).with_values(**values)
        opened.append(Opened(context.new_page(), tmp_path, spec, *beside))
        return opened[-1]

    yield open_one
    for one in opened:
        assert one.faults == []
        assert one.outside() == []
    context.close()
