"""Markup and scripts in anything that a reader or a file brings stay text: in Chromium.

A page with them must have the very elements and attributes of one with plain words in their place,
nothing of them may run, and each must be there to read.
"""

import json
import threading

import pytest

from dpo_lib.cli.drawn import Answer
from dpo_lib.cli.judgements import Judgements, Pair
from dpo_lib.cli.label import Server
from dpo_lib.cli.report import write_report
from dpo_lib.training import DPOConfig, TrainingHistory
from dpo_lib.widgets import join
from dpo_lib.widgets.annotator import Annotator
from dpo_lib.widgets.bet import Bet
from dpo_lib.widgets.clicks import pairs
from dpo_lib.widgets.done import Done
from dpo_lib.widgets.spec import Choice, WidgetSpec
from dpo_lib.widgets.token_view import TEXTS, TokenView
from dpo_lib.widgets.your_clicks import YourClicks
from tests.widgets.conftest import write_page

PAYLOADS = (
    "<script>ran(1)</script>",
    "</script><script>ran(2)</script>",
    "<img src=x onerror=ran(3)>",
    "\"><svg onload=ran(4)></svg><b class='",
    "' onmouseover='ran(5)' autofocus onfocus='ran(5)' x='",
    "<iframe srcdoc='<script>parent.ran(6)</script>'></iframe>",
    "<a href='javascript:ran(7)'>press</a> javascript:ran(7)",
    "<!--<script>ran(8)//--><details open ontoggle=ran(8)>",
    "<math><mtext></p><style></math><img src onerror=ran(9)></style>",
    "</title></style></textarea></template><body onload=ran(10)>",
    "$how ${title} $$ {{ran(11)}} %s \\u003cscript\\u003eran(11)\\u003c/script\\u003e &lt;i&gt;",
    "<base href='//elsewhere.test/'><meta http-equiv=refresh content='0;url=javascript:ran(12)'>",
)
PLAIN = tuple(f"plain words {i}".ljust(len(text), "x") for i, text in enumerate(PAYLOADS))

# All elements with the names of their attributes, in order; and what is to read.
SKELETON = """() => [...document.querySelectorAll("*")].map((node) =>
  [node.tagName, ...[...node.attributes].map(({ name }) => name).sort()].join(" "))"""
TOUCH = """() => { for (const node of document.querySelectorAll("*"))
  for (const name of ["mouseover", "focus", "load", "error", "toggle"])
    node.dispatchEvent(new Event(name)); }"""
SAID = """() => [...document.querySelectorAll("[role=status]")].every((node) => node.textContent)"""
TO_READ = """() => [document.body.textContent,
  ...[...document.querySelectorAll("[aria-label]")].map((node) => node.ariaLabel)].join("\\n")"""


@pytest.fixture(scope="module")
def look(browser):
    """Open an address, and see what the page is made of, what it says, and that nothing ran."""
    contexts = []

    def look(address, kept=()):
        context = browser.new_context(viewport={"width": 900, "height": 900})
        contexts.append(context)
        page = context.new_page()
        faults = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.on("frameattached", lambda frame: faults.append("a frame"))
        where = address.rpartition("/")[0]
        page.on("request", lambda r: r.url.startswith(where) or faults.append(r.url))
        page.add_init_script(
            "window.hits = []; window.ran = (n) => window.hits.push(n);"
            f"for (const [k, v] of {json.dumps(list(kept))}) localStorage.setItem(k, v);"
        )
        page.goto(address)
        page.wait_for_function(SAID)
        page.evaluate(TOUCH)
        assert page.evaluate("window.hits") == []
        assert faults == []
        return page

    yield look
    for context in contexts:
        context.close()


def assert_stay_text(pages, shown=PAYLOADS):
    plain, nasty = pages
    assert nasty.evaluate(SKELETON) == plain.evaluate(SKELETON)
    text = nasty.evaluate(TO_READ)
    assert [payload for payload in shown if payload not in text] == []


def report_of(path, texts):
    history = TrainingHistory(DPOConfig())
    names = ("loss", "reward_accuracy", "margin", "chosen_logp", "rejected_logp")
    history.steps = [{"step": i, **dict.fromkeys(names, 0.1 * i)} for i in range(3)]
    some = iter(texts)
    settings = {"model": next(some), "lora": None, "steps": 6, "batch_size": 2, "loss": next(some)}
    settings |= {"beta": 0.1, "lr": 1e-4, "seed": 0}
    results = {"seconds": 1.0, "held_out": None, "tokens": {next(some): 1.0}}
    run = {"settings": settings, "data": [texts[2]], "pairs": 9, "held_out": 1, "results": results}
    run |= {"skipped": {texts[0]: 1}, "advice": list(texts)}
    samples = [
        {
            "prompt": text,
            "before": {"text": text, "tokens": 1, "finished": True},
            "after": {"text": text[::-1], "tokens": 1, "finished": False},
        }
        for text in texts
    ]
    write_report(path, run, history, samples)
    return path.as_uri()


def test_in_the_report(look, tmp_path):
    both = enumerate((PLAIN, PAYLOADS))
    assert_stay_text([look(report_of(tmp_path / f"{i}.html", texts)) for i, texts in both])


def test_in_the_page_of_label(look, tmp_path):
    """Three in each pair, and the name of the file at the end."""
    pages = []
    for texts in (PLAIN, PAYLOADS):
        threes = [texts[i : i + 3] for i in range(0, len(texts), 3)]
        plan = [Pair(prompt, Answer(first), Answer(second)) for prompt, first, second in threes]
        judgements = Judgements(tmp_path / texts[2], plan, {})
        server = Server(judgements)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen = [look(server.address)]
        for _ in plan:
            judgements.judge(judgements.events, "first", 1.0)
            seen.append(look(server.address))
        pages.append(seen)
        for page in seen:
            page.wait_for_function("document.querySelector('[role=status]')?.textContent")
        server.shutdown()
        server.server_close()
        judgements.close()
    for i, two in enumerate(zip(*pages, strict=True)):
        assert_stay_text(two, PAYLOADS[3 * i : 3 * i + 3] or PAYLOADS[2:3])


def page_of(path, widgets):
    """One page with these widgets, as the book has it."""
    bodies = "".join(cls.static_html(spec) for cls, spec in widgets)
    return write_page(path, bodies, join.static_script({spec.kind for _, spec in widgets}))


def widgets_of(texts):
    """Widgets whose state and description, from Python, hold these texts."""
    fresh = [
        {"prompt": text, "first": text + "1", "second": "2" + text, "practice": False}
        for text in texts
    ]
    judged = [{"choice": "first", "seconds": 1.0}] * (len(pairs()) + len(fresh) - 1)
    result = TokenView.build_spec().state["result"] | {
        "prompt": [texts[0]],
        "tokens": [[texts[1], *texts[2:5]], [texts[5], *texts[6:8]]],
    }
    result["logps"] = {name: [[-1.0] * 4, [-1.0] * 3] for name in result["logps"]}
    choice = Bet.choice_spec(
        "a-bet", texts[8], [texts[0], texts[1]], texts[0], texts[2], rows=[texts[3]]
    )
    chapter = {"name": texts[4], "title": texts[5], "bets": [{"title": texts[6], **choice.data}]}
    chapter["exercises"] = [{"key": "1.1", "title": texts[7]}]
    return [
        (Annotator, Annotator.build_spec().with_values(fresh=fresh, judged=judged, started=True)),
        (Annotator, Annotator.build_spec().with_values(note=texts[9])),
        (YourClicks, YourClicks.spec_of("scores").with_values(note=texts[10])),
        (
            TokenView,
            TokenView.build_spec().with_values(
                **dict(zip(TEXTS, texts, strict=False)), result=result
            ),
        ),
        (Bet, choice.with_values(bet=[texts[0]], shown=True)),
        (Done, Done.spec_of([chapter]).with_values(note=texts[11])),
    ]


def test_in_widgets_with_state_from_python(look, tmp_path):
    assert_stay_text(
        [
            look(page_of(tmp_path / f"{i}.html", widgets_of(texts)))
            for i, texts in enumerate((PLAIN, PAYLOADS))
        ]
    )


def stored(texts):
    """What the browser keeps of clicks that were imported, of bets and of what was done."""
    rows = [
        {"prompt": text, "chosen": text + "1", "rejected": "2" + text, "from": source}
        for text, source in zip(texts, ("fresh", "file", "annotator") * 4, strict=True)
    ]
    bets = {f"bet-{i}": {"title": t, "bet": [t], "truth": t} for i, t in enumerate(texts)}
    done = {f"exercise {text}": text for text in texts}
    return {
        "dpo-book-clicks": json.dumps({"version": 1, "rows": rows}),
        "dpo-book-bets": json.dumps({"version": 1, "bets": bets}),
        "dpo-book-done": json.dumps(done),
    }.items()


def test_in_what_the_browser_keeps(look, tmp_path):
    bet = Bet.choice_spec("bet-3", "Which?", ["a", "b"], "a", "It is a.")
    widgets = [
        (Annotator, Annotator.build_spec()),
        (YourClicks, YourClicks.build_spec()),
        (Done, Done.build_spec()),
        (Bet, bet),
    ]
    address = page_of(tmp_path / "page.html", widgets)
    assert_stay_text([look(address, stored(texts)) for texts in (PLAIN, PAYLOADS)])


def test_in_labels_titles_and_options(look, tmp_path):
    """What an author writes is text too, but for its subscripts."""

    def spec(texts):
        shown = Choice("show", texts[0], texts[1:3], texts[1])
        return Annotator, WidgetSpec(
            "annotator",
            texts[3],
            (shown,),
            Annotator.build_spec().data,
            Annotator.build_spec().state,
        )

    pages = [
        look(page_of(tmp_path / f"{i}.html", [spec(texts)]))
        for i, texts in enumerate((PLAIN, PAYLOADS))
    ]
    assert_stay_text(pages, PAYLOADS[:4])
