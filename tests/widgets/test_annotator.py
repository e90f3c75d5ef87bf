"""The annotator of chapter 1: clicks become rows, and the rows are training data."""

import json
from pathlib import Path

import pytest

from dpo_lib.data import PreferenceDataset, read_jsonl
from dpo_lib.widgets import Annotator, join
from dpo_lib.widgets.clicks import PRACTICE, pairs, rows_of
from dpo_lib.world import find_prompt, load_pairs, world_tokenizer
from tests.widgets.conftest import reopen_with, write_page
from tests.widgets.looks import assert_accessible, colors_of

ROOT = Path(__file__).resolve().parents[2]
HEIGHT = "document.querySelector('.dpo-widget').getBoundingClientRect().height"
STATUS_IS = "words => document.querySelector('.dpo-status').textContent == words"
# A clock of the test's own: a judgment takes as long as the test says, and no longer.
CLOCK = "window.now = 0; performance.now = () => window.now"


@pytest.fixture
def open_page(browser, tmp_path):
    spec = Annotator.build_spec()
    body, script = spec.to_html(Annotator.describe(spec.values)), join.static_script(["annotator"])
    file = tmp_path / "page.html"
    address = write_page(file, body, CLOCK, script, style="body { margin: 0 }")
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    faults = []

    def open_one():
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(address)
        return page

    yield open_one
    assert faults == []
    context.close()


@pytest.fixture
def page(open_page):
    return open_page()


def settle(page):
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")


def wait(page, seconds):
    page.evaluate("ms => { window.now += ms; }", 1000 * seconds)


def press(page, key, after=1.0):
    wait(page, after)
    page.keyboard.press(key)
    settle(page)


def tile(page, name):
    box = page.locator(".dpo-tile", has_text=name)
    return box.locator(".dpo-value").text_content()


def expected_words(choices, started=True):
    judged = [{"choice": choice, "seconds": 1.0} for choice in choices]
    state = Annotator.build_spec().state | {"started": started, "judged": judged}
    return Annotator.describe(state)


def kept(page):
    """The rows in this browser."""
    stored = page.evaluate("JSON.parse(localStorage.getItem('dpo-book-clicks'))")
    return stored["rows"] if stored else []


def table(page):
    rows = page.get_by_role("row").all()[1:]
    return [row.get_by_role("cell").all_text_contents() for row in rows]


class TestPairs:
    def test_practice_comes_first_and_only_once(self):
        assert [pair["practice"] for pair in pairs()] == [True] + 24 * [False]

    def test_all_but_practice_are_on_policy_pairs_in_the_world_s_words(self):
        committed = {(p.prompt, frozenset((p.first, p.second))) for p in load_pairs()}
        for pair in pairs()[1:]:
            assert (pair["prompt"], frozenset((pair["first"], pair["second"]))) in committed
            for text in (pair["prompt"], pair["first"], pair["second"]):
                world_tokenizer().encode(text)
        assert len({(p["prompt"], p["first"], p["second"]) for p in pairs()}) == 25

    def test_families_are_balanced_and_sides_are_mixed(self):
        families = [find_prompt(pair["prompt"]).family for pair in pairs()[1:]]
        assert {families.count(family) for family in families} == {6}
        assert families != sorted(families)
        first_of = {(p.prompt, p.first, p.second) for p in load_pairs()}
        kept = sum((p["prompt"], p["first"], p["second"]) in first_of for p in pairs())
        assert 6 <= kept <= 18

    def test_the_practice_pair_is_the_one_that_the_chapter_discusses(self):
        chapter = (ROOT / "notebooks/01_alignment_problem.ipynb").read_text(encoding="utf-8")
        assert f"**A.** *{PRACTICE['first']}*" in chapter
        assert f"**B.** *{PRACTICE['second']}*" in chapter

    def test_the_order_is_the_same_every_time(self):
        before = pairs()
        pairs.cache_clear()
        assert pairs() == before


class TestRows:
    def test_rows_leave_out_practice_and_skips(self):
        judged = [
            {"choice": choice, "seconds": float(i)}
            for i, choice in enumerate(["first", "second", "skip", "first"])
        ]
        rows = rows_of(pairs(), judged)
        assert [row["prompt"] for row in rows] == [pairs()[1]["prompt"], pairs()[3]["prompt"]]
        assert (rows[0]["chosen"], rows[0]["rejected"], rows[0]["seconds"]) == (
            pairs()[1]["second"],
            pairs()[1]["first"],
            1.0,
        )
        assert rows[1]["chosen"] == pairs()[3]["first"]

    def test_a_notebook_reads_the_rows_from_the_widget(self):
        widget = Annotator()
        assert widget.rows == []
        widget.plot.judged = [{"choice": "second", "seconds": 3.0}] * 2
        assert widget.rows == rows_of(pairs(), widget.plot.judged)
        assert len(widget.rows) == 1

    def test_python_and_the_browser_make_the_same_rows(self, page):
        for length in (0, 1, 5, 25):
            judged = [
                {"choice": ("first", "skip", "second")[i * i % 3], "seconds": i / 10}
                for i in range(length)
            ]
            got = page.evaluate(
                "([p, j]) => dpoBook.widgets.annotator.rowsOf(p, j)", [list(pairs()), judged]
            )
            assert got == rows_of(pairs(), judged)

    def test_the_median_is_one_of_the_values(self, page):
        for values, expected in [([3], 3), ([4, 1], 1), ([9, 1, 10], 9), ([2, 8, 4, 1], 2)]:
            got = page.evaluate("v => dpoBook.widgets.annotator.median(v)", values)
            assert got == expected


def test_the_downloaded_rows_are_training_data(page, tmp_path):
    """The whole way of a click: page, file, records, batch."""
    choices = ["second", *8 * ["first", "skip", "second"]]
    page.get_by_role("button", name="Start").click()
    settle(page)
    keys = {"first": "1", "second": "ArrowRight", "skip": "s"}
    for number, choice in enumerate(choices):
        press(page, keys[choice], after=1 + number / 10)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSONL").click()
    assert download.value.suggested_filename == "preferences.jsonl"
    path = tmp_path / "preferences.jsonl"
    download.value.save_as(path)

    judged = [
        {"choice": choice, "seconds": round(1 + number / 10, 1)}
        for number, choice in enumerate(choices)
    ]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows_of(pairs(), judged)
    assert list(json.loads(lines[0])) == ["prompt", "chosen", "rejected", "seconds"]

    records = read_jsonl(path)
    assert len(records) == 16
    assert records[0].extra == {"seconds": 1.1}
    batch = PreferenceDataset(records, world_tokenizer()).batch()
    decoded = world_tokenizer().decode(batch["chosen"][0])
    assert decoded == pairs()[1]["first"] == records[0].chosen


def test_clicks_keys_skip_undo_and_reset(page):
    def unusable():
        return page.locator("[aria-disabled=true]").all_text_contents()

    def bar():
        return page.get_by_role("progressbar").evaluate("n => [n.value, n.max]")

    page.wait_for_function(STATUS_IS, arg=expected_words([], started=False))
    assert not page.get_by_role("button", name="Response 1").is_visible()
    assert (unusable(), bar()) == (["Skip", "Undo", "Download JSONL"], [0, 25])
    page.get_by_role("button", name="Start").click()
    settle(page)
    assert (unusable(), bar()) == (["Undo", "Download JSONL"], [0, 25])
    assert page.get_by_text("Prompt: Summarize").is_visible()
    page.wait_for_function(STATUS_IS, arg=expected_words([]))

    press(page, "2")
    assert table(page)[0][0].startswith("Practice pair")
    assert tile(page, "rows in your file") == "0"
    assert (unusable(), bar()) == (["Download JSONL"], [1, 25])
    wait(page, 3.24)
    page.get_by_role("button", name="Response 2").click()
    settle(page)
    pair = pairs()[1]
    assert table(page)[0] == [pair["prompt"], pair["second"], pair["first"], "3.2"]
    press(page, "S", after=2)
    press(page, "ArrowLeft", after=5)
    pair = pairs()[3]
    assert table(page)[0] == [pair["prompt"], pair["first"], pair["second"], "5.0"]  # newest first
    assert tile(page, "rows in your file") == "2"
    assert tile(page, "skipped") == "1"
    assert tile(page, "last judgment") == "5.0 s"
    assert tile(page, "half took at most") == "3.2 s"
    page.wait_for_function(STATUS_IS, arg=expected_words(["second", "second", "skip", "first"]))
    assert page.get_by_text("Pair 4 of 24", exact=True).is_visible()
    assert (unusable(), bar()) == ([], [4, 25])
    for line in page.get_by_role("row").all()[:2]:
        cells = line.locator("th, td").all()
        assert [colors_of(cell)[0] for cell in cells] == ["ink", "chosen", "rejected", "ink"]

    press(page, "u")
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert (tile(page, "rows in your file"), tile(page, "skipped")) == ("1", "0")
    assert page.get_by_text("Pair 2 of 24", exact=True).is_visible()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(STATUS_IS, arg=expected_words([], started=False))
    assert tile(page, "last judgment") == "–"
    for name in ("Undo", "Download JSONL"):  # nothing to undo or to save: nothing happens
        button = page.get_by_role("button", name=name)
        assert button.get_attribute("aria-disabled") == "true"
        button.evaluate("node => node.click()")


def judge(page, keys, start="Start"):
    page.get_by_role("button", name=start, exact=True).click()
    settle(page)
    for key in keys:
        press(page, key)


def test_reopened_it_shows_the_kept_rows_and_the_next_click_adds_one(page):
    choices = ["first", "skip", "first", "second"]  # the practice pair is not kept
    judge(page, "1s12")
    before = kept(page)
    assert [row["from"] for row in before] == 2 * ["annotator"]
    page.reload()
    page.wait_for_function(STATUS_IS, arg=expected_words(choices, started=False))
    assert page.get_by_role("status").text_content().startswith("From before: 2 in your file, 1")
    assert tile(page, "rows in your file") == "2"
    assert tile(page, "half took at most") == "1.0 s"
    assert [row[0] for row in table(page)] == [pairs()[3]["prompt"], pairs()[2]["prompt"]]
    judge(page, "1", "Go on")
    assert [{k: v for k, v in row.items() if k != "from"} for row in kept(page)] == rows_of(
        pairs(), [{"choice": choice, "seconds": 1.0} for choice in [*choices, "first"]]
    )
    press(page, "u")
    assert kept(page) == before


def test_reset_after_reopening_erases_what_was_kept(page):
    judge(page, "1122")
    page.reload()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function(STATUS_IS, arg=expected_words([], started=False))
    assert page.evaluate("localStorage.length") == 0
    page.reload()
    assert tile(page, "rows in your file") == "0"


def test_two_open_pages_lose_nothing_of_each_other(open_page):
    first, second = open_page(), open_page()
    judge(first, "1122")
    second.wait_for_function(
        STATUS_IS, arg=expected_words(["skip", "first", "second", "second"], False)
    )
    judge(second, "1", "Go on")
    assert len(kept(second)) == 4
    first.get_by_text("Pair 5 of 24", exact=True).wait_for()
    press(first, "2")
    assert len(kept(first)) == 5
    second.get_by_role("button", name="Reset").click()
    settle(second)
    assert second.evaluate("localStorage.length") == 0
    first.wait_for_function("document.querySelector('.dpo-tile .dpo-value').textContent == '0'")


def test_what_is_kept_and_cannot_be_used_is_told(page):
    assert page.get_by_text("Your rows stay in this browser").is_visible()
    good = rows_of(pairs(), [{"choice": "first", "seconds": 2.0}] * 3)
    reopen_with(page, {"dpo-book-clicks": [*good, 7]})
    assert page.get_by_text("1 of the 3 rows kept here cannot be read: left out.").is_visible()
    judge(page, "2", "Go on")
    assert len(kept(page)) == 3


def test_an_imported_row_on_a_pair_of_the_annotator_counts_as_seen(page):
    row = rows_of(pairs(), [{"choice": "first", "seconds": 2.0}] * 2)[0]
    del row["seconds"]
    rows = [row | {"from": "file"}]
    reopen_with(page, {"dpo-book-clicks": {"version": 1, "rows": rows}})
    page.wait_for_function(STATUS_IS, arg=expected_words(["skip", "first"], started=False))
    assert [row[-1] for row in table(page)] == ["–"]
    assert page.locator(".dpo-tile .dpo-value").all_text_contents() == ["1", "0", "–", "–"]
    judge(page, "u", "Go on")
    assert kept(page) == []


def test_a_double_click_and_a_held_key_judge_one_pair(page):
    page.get_by_role("button", name="Start").click()
    press(page, "1", after=0.1)  # too fast to have read anything
    assert page.get_by_text("Practice pair").first.is_visible()
    wait(page, 2)
    page.keyboard.down("1")
    wait(page, 2)
    page.keyboard.down("1")  # the second is a repeat
    page.keyboard.up("1")
    settle(page)
    assert page.get_by_text("Pair 1 of 24", exact=True).is_visible()


def test_keys_outside_and_keys_of_the_browser_are_left_alone(page):
    page.get_by_role("button", name="Start").click()
    press(page, "Control+1")
    press(page, "3")
    page.evaluate("document.activeElement.blur()")
    press(page, "1")
    assert tile(page, "rows in your file") == "0"
    assert page.get_by_text("Practice pair").first.is_visible()


@pytest.mark.parametrize("width", [360, 1000])
def test_no_pair_moves_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    settle(page)
    settle(page)
    page.wait_for_timeout(450)
    heights = {page.evaluate(HEIGHT)}
    page.get_by_role("button", name="Start").click()
    for _ in pairs():
        settle(page)
        heights.add(page.evaluate(HEIGHT))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        press(page, "1")
    assert page.get_by_text("That was the last pair").is_visible()
    assert page.get_by_text("24 of 24", exact=True).is_visible()
    page.wait_for_function(STATUS_IS, arg=expected_words(25 * ["first"]))
    heights.add(page.evaluate(HEIGHT))
    assert len(heights) == 1
    press(page, "1")  # there is nothing left to judge
    assert tile(page, "rows in your file") == "24"
    # Where there is no room for the heads of the columns, the two responses carry theirs.
    heads = page.locator(".dpo-ann-table th")
    cells = page.locator(".dpo-ann-table tbody tr").first.locator("td")
    carried = cells.evaluate_all("all => all.map(n => getComputedStyle(n, '::before').content)")
    assert carried == [
        f'"{name}: "' if width == 360 and i in (1, 2) else "none"
        for i, name in enumerate(heads.all_text_contents())
    ]
    assert heads.first.is_visible() == (width != 360)


def test_after_judging_both_themes_pass_the_accessibility_rules(page):
    page.get_by_role("button", name="Start").click()
    for key in "12s1212":
        press(page, key)
    assert_accessible(page)
