"""The reader's clicks: kept for all pages, read back, and never anything else."""

import json

import pytest

from dpo_lib.widgets import join
from tests.widgets.conftest import write_page

ROW = {"prompt": "List two fruits.", "chosen": "pear and plum.", "rejected": "I do not know."}
OTHER = ROW | {"prompt": "List \ufeffthree fruits.", "seconds": 1.5}
CLICKS = "dpoBook.modules.module_clicks"
KEEP = "([gone, come]) => dpoBook.modules.module_clicks.change(gone, come)"
READ = f"""text => {{
  try {{ return {CLICKS}.fromJsonl(text); }}
  catch (error) {{ return error.message; }}
}}"""
BAD = [
    "<script>alert(1)</script>",
    "null",
    "[1]",
    json.dumps(ROW | {"chosen": 3}),
    json.dumps(ROW | {"prompt": " "}),
    json.dumps(ROW | {"rejected": ROW["chosen"]}),
    json.dumps(ROW | {"seconds": -1}),
    json.dumps(ROW | {"chosen": "a" * 2001}),
    json.dumps(ROW)[:-4],
]


def clicked(row, place="annotator"):
    return row | {"from": place}


@pytest.fixture
def open_page(browser, tmp_path):
    address = write_page(tmp_path / "page.html", "", join.static_script(["annotator"]))
    context = browser.new_context()

    def open_one(before=""):
        page = context.new_page()
        page.add_init_script(before)
        page.goto(address)
        return page

    yield open_one
    context.close()


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.mark.parametrize("line", BAD)
def test_what_is_no_row_is_refused_whole_with_its_line(page, line):
    said = page.evaluate(READ, f"{json.dumps(ROW)}\n{line}\n")
    assert said.startswith("Line 2")
    assert said.endswith("nothing was imported.")


def test_a_file_without_rows_or_with_too_many_is_refused(page):
    assert page.evaluate(READ, "\n \t\n").startswith("There is no row")
    assert page.evaluate(READ, 5001 * f"{json.dumps(ROW)}\n").startswith("At most 5000 rows")


LONGEST, ONE_MORE = "a" * 2000, "a" * 2001
OF_A_TEXT = "must be a text of 1 to 2000 characters"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": LONGEST, "chosen": LONGEST, "seconds": 0}, ""),
        *(({name: ONE_MORE}, f"{name} {OF_A_TEXT}") for name in ROW),
        (dict.fromkeys(("chosen", "rejected"), ""), f"chosen {OF_A_TEXT}"),
        ({"rejected": ROW["chosen"]}, "chosen and rejected are the same"),
        ({"seconds": -0.1}, "seconds must be a number, 0 or more"),
    ],
)
def test_a_row_is_taken_up_to_its_limits_and_told_what_is_beyond_them(page, change, words):
    row = ROW | change
    expected = f"Line 1: {words}; nothing was imported." if words else [clicked(row, "file")]
    assert page.evaluate(READ, json.dumps(row)) == expected


def test_as_many_rows_as_may_be_are_read_and_one_more_is_counted(page):
    line = f"{json.dumps(ROW)}\n"
    assert len(page.evaluate(READ, 5000 * line)) == 5000
    assert "this file has 5001: nothing was imported" in page.evaluate(READ, 5001 * line)


def test_rows_go_to_a_file_and_come_back(page):
    assert page.evaluate(KEEP, [[], [clicked(ROW), clicked(OTHER, "fresh")]]) == ""
    page.reload()
    text = page.evaluate(f"{CLICKS}.toJsonl({CLICKS}.kept().rows)")
    assert [json.loads(row) for row in text.splitlines()] == [ROW, OTHER]
    for start in ("", "\ufeff"):  # as some editors begin a file
        read = page.evaluate(READ, start + text)
        assert read == [clicked(ROW, "file"), clicked(OTHER, "file")]


def test_a_pair_has_one_row_and_the_last_counts(page):
    turned = clicked(ROW | {"chosen": ROW["rejected"], "rejected": ROW["chosen"]}, "file")
    others = [clicked(OTHER), clicked(ROW | {"rejected": "pear."})]  # one on the same prompt
    page.evaluate(KEEP, [[], [clicked(ROW), *others]])
    page.evaluate(KEEP, [[], [turned]])
    assert page.evaluate(f"{CLICKS}.kept().rows") == [*others, turned]
    page.evaluate(KEEP, [[clicked(ROW)], []])
    assert page.evaluate(f"{CLICKS}.kept().rows") == others
    page.evaluate(f"{CLICKS}.erase()")
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize(
    ("stored", "rows", "note"),
    [
        ("{", [], "cannot be read: it is left out"),
        ("5", [], "cannot be read: it is left out"),
        ('{"version": 2, "rows": []}', [], "cannot be read: it is left out"),
        ('{"version": 1, "rows": {"map": 1}}', [], "cannot be read: it is left out"),
        ('{"version": 1, "rows": [{}, null]}', [], "2 of the 2 rows"),
        (
            json.dumps({"version": 1, "rows": [clicked(ROW), clicked(OTHER, "elsewhere")]}),
            [clicked(ROW)],
            "1 of the 2 rows",
        ),
        ("[]", [], ""),
        (
            json.dumps([ROW, 3]),
            [clicked(ROW)],
            "1 of the 2 rows",
        ),  # kept before there was a version
    ],
)
def test_what_cannot_be_read_is_told_and_the_rest_used(page, stored, rows, note):
    page.evaluate("text => localStorage.setItem('dpo-book-clicks', text)", stored)
    kept = page.evaluate(f"{CLICKS}.kept()")
    assert kept["rows"] == rows
    assert note in kept["note"]
    assert bool(kept["note"]) == bool(note)


def test_what_was_set_aside_stays_where_more_is_set_aside(page):
    unread = ["{", '{"version": 2, "rows": []}', "5"]
    for text in unread:
        page.evaluate("text => localStorage.setItem('dpo-book-clicks', text)", text)
        assert page.evaluate(KEEP, [[], [clicked(ROW)]]) == ""
    aside = page.evaluate("localStorage.getItem('dpo-book-clicks-unread')")
    assert aside.split("\n") == unread
    page.evaluate(f"{CLICKS}.erase()")
    assert page.evaluate("localStorage.length") == 0


@pytest.mark.parametrize(
    "before",
    [
        "Storage.prototype.setItem = () => { throw new Error('full'); };",
        "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } });",
    ],
)
def test_without_room_the_rows_live_in_memory_and_a_sentence_says_so(open_page, before):
    page = open_page(before)
    page.evaluate(f"() => {{ window.heard = 0; {CLICKS}.onClicks(() => window.heard++); }}")
    assert page.evaluate(f"{CLICKS}.kept()") == {"rows": [], "note": ""}
    for rows in ([clicked(ROW)], [clicked(ROW), clicked(OTHER)]):
        assert "keeps nothing" in page.evaluate(KEEP, [[], rows[-1:]])
        kept = page.evaluate(f"{CLICKS}.kept()")
        assert kept["rows"] == rows
        assert "keeps nothing" in kept["note"]
        assert page.evaluate("window.heard") == len(rows)


def test_what_was_in_memory_is_kept_as_soon_as_there_is_room(page):
    full = "Storage.prototype.setItem = () => { throw new Error('full'); };"
    page.evaluate(f"() => {{ window.room = Storage.prototype.setItem; {full} }}")
    page.evaluate(KEEP, [[], [clicked(ROW)]])
    page.evaluate("() => { Storage.prototype.setItem = room; }")
    assert page.evaluate(KEEP, [[], [clicked(OTHER)]]) == ""
    rows = [clicked(ROW), clicked(OTHER)]
    assert page.evaluate(f"{CLICKS}.kept()") == {"rows": rows, "note": ""}
    assert page.evaluate("localStorage.length") == 1  # nothing is set aside


def test_pages_hear_of_each_other_s_changes(open_page):
    first, second = open_page(), open_page()
    for page in (first, second):
        page.evaluate(f"() => {{ window.heard = 0; {CLICKS}.onClicks(() => window.heard++); }}")
    first.evaluate(KEEP, [[], [clicked(ROW)]])
    assert first.evaluate("window.heard") == 1
    second.wait_for_function("window.heard == 1")


def test_what_a_page_did_not_hear_it_sees_when_the_reader_comes_to_it(page):
    hear = f"window.deaf = {CLICKS}.onClicks(() => window.heard++)"
    page.evaluate(f"() => {{ window.heard = 0; {hear}; }}")
    put = "rows => localStorage.setItem('dpo-book-clicks', JSON.stringify({ version: 1, rows }))"
    focus = "window.dispatchEvent(new Event('focus'))"
    page.evaluate(put, [clicked(ROW)])  # no event here
    for _ in range(2):
        page.evaluate(focus)
    assert page.evaluate("window.heard") == 1
    page.evaluate("deaf()")
    page.evaluate(put, [clicked(OTHER)])
    page.evaluate(focus)
    page.evaluate(KEEP, [[], [clicked(ROW)]])
    assert page.evaluate("window.heard") == 1


def test_whose_they_are(page):
    whose = f"rows => {CLICKS}.whose(rows)"
    assert page.evaluate(whose, [clicked(ROW), clicked(OTHER, "fresh")]) == "2 of yours"
    both = [clicked(ROW, "file"), clicked(OTHER)]
    assert page.evaluate(whose, both) == "1 of yours, 1 from a file"
    assert page.evaluate(whose, 10 * [clicked(ROW, "file")]) == "10 from a file"
