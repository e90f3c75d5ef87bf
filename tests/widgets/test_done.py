"""What the reader has done: counted, ticked, exported, imported, erased; the list is the book's."""

import json
import re

import dpo_done
import dpo_times
import pytest
from dpo_contents import APPENDICES, CHAPTERS, NOTEBOOKS

from dpo_lib.exercises.all import EXERCISES
from dpo_lib.widgets import Done, join, quiz
from tests.widgets.conftest import reopen_with, write_page
from tests.widgets.looks import assert_accessible

DAY = "2026-11-02"
BETS = [
    {
        "name": "drafts", "title": "Best of 16", "form": "number", "truth": 1.25, "digits": 2,
        "unit": "sd", "min": 0.0, "max": 2.0, "step": 0.05, "href": "two.html",
    },
    {
        "name": "bland", "title": "Which way?", "form": "choice", "truth": ["longer", "shorter"],
        "options": ["shorter", "longer"], "rows": ["a", "b"], "href": "three.html",
    },
]  # fmt: skip
LIST = [
    {
        "name": "Chapter 2",
        "title": "Scores",
        "exercises": [
            {"key": "2.1", "title": "Build it", "minutes": 5, "href": "two.html#ex-a"},
            {"key": "ex-bt-gap", "title": "A gap", "minutes": 10, "href": "two.html#ex-b"},
        ],
        "quiz": {"chapter": "2", "questions": 4, "href": "two.html#check-yourself"},
        "bets": BETS,
        "clicks": {"href": "one.html"},
    },
    {"name": "Appendix G", "exercises": [{"key": "ex-g", "title": "Break the tree"}]},
]
CLICKS = [
    {"prompt": "p", "chosen": "a", "rejected": "b", "seconds": 2.5, "from": "annotator"},
    {"prompt": "p", "chosen": "c", "rejected": "d", "from": "file"},
]
KEPT = {
    "dpo-book-clicks": {"version": 1, "rows": CLICKS},
    "dpo-book-done": {"exercise 2.1": DAY, "quiz 2.1": DAY, "quiz 2.3": DAY},
    "dpo-book-bets": {
        "version": 1,
        "bets": {
            "drafts": {"title": "Your bet", "bet": 1.0, "truth": 1.25},
            "bland": {"title": "Your bet", "bet": ["longer", "longer"], "truth": None},
        },
    },
}


# --- what there is -----------------------------------------------------------------------------


def test_the_list_is_that_of_the_notebooks():
    chapters = dpo_done.inventory(lambda page: f"../{page}.html")
    assert [c["name"] for c in chapters] == [
        *(f"Chapter {number}" for number in CHAPTERS),
        *(f"Appendix {a.upper()}" for a, page in APPENDICES.items() if page in NOTEBOOKS),
    ]
    keys = [exercise["key"] for chapter in chapters for exercise in chapter["exercises"]]
    assert len(set(keys)) == len(keys) == sum(len(dpo_times.exercises(p)) for p in NOTEBOOKS)
    assert {*EXERCISES} <= {*keys}
    for chapter in chapters[: len(CHAPTERS)]:
        number = chapter["quiz"]["chapter"]
        assert chapter["name"] == f"Chapter {number}"
        assert chapter["quiz"]["questions"] == len(quiz.questions(number))
    bets = [bet for chapter in chapters for bet in chapter["bets"]]
    assert len({bet["name"] for bet in bets}) == len(bets) >= 15
    assert all(bet["truth"] is not None for bet in bets)
    assert ["clicks" in chapter for chapter in chapters].index(True) == 0
    (statements,) = [bet for bet in bets if bet["name"] == "four-statements"]
    assert statements in chapters[3]["bets"]


def test_each_entry_of_the_list_is_as_its_notebook_has_it():
    chapters = dpo_done.inventory(lambda page: f"../{page}.html")
    sentences = {"said", "why", "x_label", "y_label"}  # said by the widget, not by the list
    for page, chapter in zip(NOTEBOOKS, chapters, strict=True):
        heading = "".join(dpo_times.cells_of(page)[0]["source"])
        assert re.search(rf"^# (Appendix [A-Z]: )?{re.escape(chapter['title'])}$", heading, re.M)
        assert not chapter["title"].startswith("Appendix")
        minutes = [exercise["minutes"] for exercise in chapter["exercises"]]
        assert sum(minutes) == dpo_times.whole(page).exercises
        entries = [
            *chapter["exercises"],
            *chapter["bets"],
            chapter.get("quiz"),
            chapter.get("clicks"),
        ]
        for entry in filter(None, entries):
            assert entry["href"].partition("#")[0] == f"../{page}.html"
        specs = {spec["data"].get("name"): spec for spec in dpo_done.specs(page)}
        for bet in chapter["bets"]:
            spec = specs[bet["name"]]
            known = {key: spec["data"][key] for key in {*spec["data"]} - sentences - {"truth"}}
            if "rows" in known:
                known["rows"] = [""] * len(known["rows"])
            told = {key: bet[key] for key in {*bet} - {"truth", "title", "href"}}
            assert told == known
            assert spec["title"] == f"Your bet: {bet['title']}"
            assert spec["data"]["truth"] in (bet["truth"], None)


def test_without_a_list_there_is_what_the_library_knows():
    chapters = Done.build_spec().data["chapters"]
    keys = [exercise["key"] for chapter in chapters for exercise in chapter["exercises"]]
    assert sorted(keys) == sorted(EXERCISES)
    for number, chapter in enumerate(chapters, 1):
        assert {e["key"].partition(".")[0] for e in chapter["exercises"]} <= {str(number)}
        asked = len(quiz.questions(str(number)))
        assert chapter["quiz"] == {"chapter": str(number), "questions": asked}
        assert ("clicks" in chapter) == (number == 1)  # where the annotator stands


# --- in the browser ----------------------------------------------------------------------------


@pytest.fixture
def open_page(browser, tmp_path):
    contexts = []

    def opened(kept=None, width=800, blocked=False, now=None, **options):
        spec = Done.spec_of(LIST)
        body = f"<main><h1>Test</h1>{Done.static_html(spec)}</main>"
        address = write_page(tmp_path / "page.html", body, join.static_script(["done"]))
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        if now:
            page.clock.set_fixed_time(now)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        if blocked:
            page.add_init_script(
                "Object.defineProperty(window, 'localStorage', { get() { throw new Error(); } })"
            )
        page.goto(address)
        if kept is not None:
            reopen_with(page, kept)
        return page

    yield opened
    for context in contexts:
        assert context.pages[0].faults == []
        context.close()


def tiles(page):
    return page.locator(".dpo-value").all_inner_texts()


def stored(page, key):
    return json.loads(page.evaluate(f"localStorage.getItem('{key}')") or "null")


def says(page, words):
    page.wait_for_function(
        "words => document.querySelector('.dpo-status').textContent === words", arg=words
    )


def test_counts_days_and_bets_beside_the_truth(open_page):
    page = open_page(KEPT)
    assert tiles(page) == ["1 of 3", "2 of 4", "2 of 2", "1 of 2", "2"]
    chapter, appendix = page.locator("details").all()
    names = page.locator(".dpo-tile .dpo-name").all_inner_texts()
    assert names == ["exercises", "quiz questions", "bets", "choices that were right", "clicks"]
    counts = "1/2 exercises, 2/4 questions, 2/2 bets"
    assert chapter.locator("summary").inner_text() == f"Chapter 2: Scores {counts}"
    assert appendix.locator("summary").inner_text() == "Appendix G 0/1 exercises"
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert [text.strip() for text in page.locator("details li").all_inner_texts()] == [
        f"Build it 5 min done on {DAY}",
        "A gap 10 min",
        "Bet: Best of 16 You said 1.00 sd, it is 1.25 sd.",
        "Bet: Which way? You were right on 1 of 2.",
        "Quiz: 2 of 4 questions answered",
        "Clicks: 1 of yours, 1 from a file.",
        "Break the tree",
    ]
    links = page.locator("details a").all()
    assert {link.inner_text(): link.get_attribute("href") for link in links} == {
        "Build it": "two.html#ex-a",
        "A gap": "two.html#ex-b",
        "Best of 16": "two.html",
        "Which way?": "three.html",
        "Quiz": "two.html#check-yourself",
        "Clicks": "one.html",
    }


def test_nothing_yet(open_page):
    page = open_page()
    assert tiles(page) == ["0 of 3", "0 of 4", "0 of 2", "0 of 0", "0"]
    assert page.get_by_text("Not placed yet.").count() == 2
    assert page.get_by_text("opened from this computer’s disk").is_visible()


def test_an_exercise_is_ticked_and_unticked_by_keyboard(open_page):
    evening = {"now": "2026-11-02T20:00:00Z", "timezone_id": "Pacific/Kiritimati"}
    page = open_page(KEPT, **evening)
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    box = page.get_by_role("checkbox", name="Done: A gap")
    box.focus()
    page.keyboard.press("Space")
    assert tiles(page)[0] == "2 of 3"
    here = "2026-11-03"  # where the reader is
    assert stored(page, "dpo-book-done")["exercise ex-bt-gap"] == here
    assert page.get_by_text(f"done on {here}").is_visible()
    assert box.evaluate("e => e === document.activeElement")
    page.keyboard.press("Space")
    assert stored(page, "dpo-book-done") == KEPT["dpo-book-done"]


def test_what_is_kept_and_not_listed_is_told(open_page):
    bets = {
        "halves": {"title": "Your bet: how many?", "bet": 100, "truth": 150},
        "later": {"title": "Your bet: which?", "bet": ["true", "false"], "truth": None},
    }
    kept = {
        "dpo-book-done": {"exercise 77.1": DAY},
        "dpo-book-bets": {"version": 1, "bets": bets},
    }
    page = open_page(kept)
    assert page.get_by_text("Kept too, though not in this list").is_visible()
    assert page.get_by_text(f"exercise 77.1, done on {DAY}").is_visible()
    assert page.get_by_text("Your bet: how many? You said 100; it is 150.").is_visible()
    assert page.get_by_text("which? You said true, false; a later chapter knows.").is_visible()
    assert not open_page(KEPT).get_by_text("Kept too").is_visible()
    odd = {"drafts": {"title": "t", "bet": 99, "truth": 1.25}, "bland": None}
    page = open_page({"dpo-book-bets": {"version": 1, "bets": odd}})
    page.locator("summary").first.click()
    assert page.get_by_text("Placed, on other terms than today’s.").is_visible()


def export(page):
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export").click()
    assert re.fullmatch(r"dpo-book-\d{4}-\d\d-\d\d\.json", saved.value.suggested_filename)
    return saved.value.path().read_text(encoding="utf-8")


def read_in(page, text, words):
    file = {"name": "a.json", "mimeType": "application/json", "buffer": text.encode()}
    page.locator("input[type=file]").set_input_files(file)
    says(page, words)


def test_out_and_in_again_elsewhere(open_page):
    text = export(open_page(KEPT))
    mine = {"halves": {"title": "t", "bet": 100, "truth": 150}}
    here = {"exercise 2.1": "2026-01-01", "exercise ex-mine": DAY}
    page = open_page({"dpo-book-done": here, "dpo-book-bets": {"version": 1, "bets": mine}})
    read_in(page, text, "Added: 6. Here already, and left as they were: 1.")
    kept = stored(page, "dpo-book-done")
    assert kept == {**KEPT["dpo-book-done"], **here}
    assert stored(page, "dpo-book-bets")["bets"] == {**mine, **KEPT["dpo-book-bets"]["bets"]}
    assert tiles(page) == ["1 of 3", "2 of 4", "2 of 2", "1 of 2", "2"]
    assert stored(page, "dpo-book-clicks") == KEPT["dpo-book-clicks"]
    read_in(page, text, "Added: 0. Here already, and left as they were: 7.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "This is no JSON, so nothing was read."),
        ("[1]", "This is no file that this page saved, so nothing was read."),
        (
            '{"kind": "dpo-book", "version": 9}',
            "This file has version 9, not 1, so nothing was read.",
        ),
        (
            '{"kind": "dpo-book", "version": 1, "done": {"exercise 2.1": "<b>", "x": 1},'
            ' "bets": {"drafts": {"bet": 1}, "A": null}, "clicks": [7, {"prompt": "p"}]}',
            "Added: 0. Here already, and left as they were: 0."
            " 6 could not be read and were left out.",
        ),
    ],
)
def test_files_that_are_none(open_page, text, words):
    page = open_page()
    read_in(page, text, words)
    assert stored(page, "dpo-book-done") is None
    assert stored(page, "dpo-book-bets") is None
    assert stored(page, "dpo-book-clicks") is None


def test_erasing_asks_first(open_page):
    page = open_page(KEPT)
    erase = page.get_by_role("button", name="Erase all")
    for leave in (lambda: page.keyboard.press("Enter"), lambda: page.keyboard.press("Escape")):
        erase.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.textContent") == "No, keep it"
        leave()
        assert page.evaluate("document.activeElement.textContent") == "Erase all"
        page.get_by_text("Erase everything").wait_for(state="hidden")
        assert stored(page, "dpo-book-done") == KEPT["dpo-book-done"]
    erase.click()
    page.get_by_role("button", name="Yes, erase it all").click()
    says(page, "Erased: exercises, quizzes, bets and clicks.")
    assert [stored(page, key) for key in KEPT] == [None, None, None]
    assert tiles(page)[4] == "0"
    assert tiles(page)[:3] == ["0 of 3", "0 of 4", "0 of 2"]


def test_another_tab_is_heard(open_page):
    page = open_page(KEPT)
    other = page.context.new_page()
    other.goto(page.url)
    other.evaluate("localStorage.removeItem('dpo-book-done')")
    page.wait_for_function("document.querySelector('.dpo-value').textContent === '0 of 3'")


def test_what_the_page_did_not_hear_it_sees_when_the_reader_comes_to_it(open_page):
    page = open_page(KEPT)
    page.evaluate("localStorage.removeItem('dpo-book-done')")  # no event here
    assert tiles(page)[0] == "1 of 3"
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    assert tiles(page)[0] == "0 of 3"


def test_what_another_widget_of_the_page_keeps_is_heard(open_page):
    page = open_page(KEPT)
    page.evaluate("dpoBook.modules.module_progress.markDone('quiz', '2.2')")
    assert tiles(page)[1] == "3 of 4"


def test_a_browser_that_keeps_nothing_is_told(open_page):
    page = open_page(blocked=True)
    assert page.get_by_text("This browser keeps nothing for this page").is_visible()
    added = "Added: 1. Here already, and left as they were: 0."
    text = json.dumps({"kind": "dpo-book", "version": 1, "done": {"quiz 2.1": DAY}})
    read_in(page, text, f"{added} This browser does not keep all of it.")


def test_in_a_notebook_it_says_where_it_is_kept_and_leaves_printing_to_the_host(open_page):
    page = open_page()
    buttons = "Export", "Import", "Print", "Erase all"
    for live, shown in ((False, [*buttons]), (True, [b for b in buttons if b != "Print"])):
        found, words = page.evaluate(
            """([spec, live]) => {
              document.body.innerHTML = `<div class="${live ? "dpo-live" : ""}"><div></div></div>`;
              const el = document.querySelector("div > div");
              const model = { get() {}, set() {}, save_changes() {} };
              dpoBook.widgets.done.render({ model, el, spec });
              const buttons = [...el.querySelectorAll(".dpo-actions:not([hidden]) button")];
              const where = el.querySelector(".dpo-done > p");
              return [buttons.map((b) => b.textContent), where.textContent];
            }""",
            [Done.spec_of(LIST).to_json(), live],
        )
        assert found == shown
        assert ("JupyterLab" in words) == live


def test_on_paper_every_chapter_is_open(open_page):
    page = open_page(KEPT)
    page.evaluate("""() => {
        window.print = () => {
            dispatchEvent(new Event("beforeprint"));
            window.opened = document.querySelectorAll("details[open]").length;
            dispatchEvent(new Event("afterprint"));
        };
    }""")
    page.locator("summary").last.click()
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("window.opened") == 2
    assert page.locator("details[open] b").all_inner_texts() == ["Appendix G"]  # as it was
    page.emulate_media(media="print")
    assert not page.get_by_role("button", name="Export").is_visible()


def test_both_themes_on_a_phone_with_all_open(open_page):
    page = open_page(KEPT, width=360)
    page.get_by_role("button", name="Erase all").click()
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert_accessible(page, rules={})
