"""What a browser has kept or a file brings, of any kind: the good rows are found, in Chromium.

Nothing is thrown but a sentence, nothing becomes markup, and what cannot be read is counted and set
aside before something is written in its place.
"""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dpo_lib.widgets import (
    Annotator,
    Bet,
    Done,
    Exercise,
    Quiz,
    TrainItYourself,
    WriteTheLoss,
    YourClicks,
    join,
)
from tests.properties.budget import tried
from tests.properties.test_injection import PAYLOADS
from tests.properties.values import any_text, json_values
from tests.widgets.conftest import write_page

NAMES = ("prompt", "chosen", "rejected")
SOURCES = ("annotator", "fresh", "file")
PROTOTYPE = ("__proto__", "constructor", "toString", "valueOf", "hasOwnProperty", "length")
NEW = {"prompt": "w, the new one", "chosen": "w a", "rejected": "w b", "from": "annotator"}
BETS = (
    Bet.number_spec("drafts", "Best of 16", (0.0, 2.0, 0.05), truth=1.25, said="S.", unit="sd"),
    Bet.curve_spec("way", "How?", [0, 1], (0.0, 2.0, 0.5), [1.0, 2.0], "S.", "x", "y"),
    Bet.choice_spec("bland", "Which?", ("shorter", "longer"), truth="longer", said="Grew."),
)
LIST = [
    {
        "name": "Chapter 2",
        "exercises": [{"key": "2.1", "title": "Build it"}],
        "quiz": {"chapter": "2", "questions": 2},
        "bets": [{"title": spec.title, **spec.data} for spec in BETS],
        "clicks": {},
    }
]

# --- what stands in a browser or a file ----------------------------------------------------------


def _is_finite(value):
    try:
        return bool(json.dumps(value, allow_nan=False))
    except ValueError:
        return False


finite = json_values.filter(_is_finite)
nasty = any_text | st.sampled_from([*PAYLOADS, *PROTOTYPE])
said = nasty.map(lambda text: f"w{text}")  # a text that is not blank


extras = st.dictionaries(
    nasty.filter(lambda name: name not in (*NAMES, "seconds", "from")), finite, max_size=2
)
seconds = st.just({}) | st.fixed_dictionaries({"seconds": st.none() | st.floats(0, 1e6)})
good_rows = st.builds(
    lambda texts, turned, seconds, source, extras: (
        {**extras, "prompt": texts[0], "chosen": texts[1] + turned, "rejected": texts[2]}
        | seconds
        | {"from": source}
    ),
    st.tuples(said, said, said),
    st.just(" or so"),
    seconds,
    st.sampled_from(SOURCES),
    extras,
).filter(lambda row: row["chosen"] != row["rejected"])
no_text = finite.filter(lambda value: not isinstance(value, str)) | st.sampled_from(
    ["", " \t", "a" * 2001]
)
no_seconds = st.sampled_from([-1, "3", [], {}, True, 10**400])
a_name = st.sampled_from(NAMES)
bad_rows = st.one_of(
    finite.filter(lambda value: not isinstance(value, dict)),
    st.builds(lambda row, name, value: {**row, name: value}, good_rows, a_name, no_text),
    st.builds(lambda row, value: {**row, "seconds": value}, good_rows, no_seconds),
    st.builds(lambda row: {**row, "chosen": row["rejected"]}, good_rows),
    st.builds(lambda row, name: {k: v for k, v in row.items() if k != name}, good_rows, a_name),
)
no_source = finite.filter(lambda value: value not in SOURCES)
foreign_rows = st.builds(lambda row, source: {**row, "from": source}, good_rows, no_source)
good = good_rows.map(lambda row: (row, True))
any_rows = st.lists(good | bad_rows.map(lambda row: (row, False)), max_size=4)
broken_texts = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda t: not is_json(t)),
    st.lists(good_rows, min_size=1, max_size=2).map(
        lambda rows: json.dumps({"version": 1, "rows": rows})[:-1]  # half written
    ),
    st.integers(2, 9).map(lambda n: json.dumps({"version": n, "rows": [NEW]})),
    finite.filter(lambda v: v is not None and not isinstance(v, list) and v != {}).map(json.dumps),
)
days = st.dates().map(str)


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def clean(row, source=None):
    """A row as it is kept."""
    names = [*NAMES, *(["seconds"] if row.get("seconds") is not None else [])]
    return {name: row[name] for name in names} | {"from": source or row["from"]}


# --- the modules ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def modules(browser, tmp_path_factory):
    """Call JavaScript on the page's modules; what it throws but an Error is a fault."""
    file = tmp_path_factory.mktemp("modules") / "page.html"
    address = write_page(file, "", join.static_script(["done", "write_the_loss"]))
    page = browser.new_page()
    page.goto(address)

    def call(body, *values):
        # As text: half a character comes through no other way.
        return json.loads(
            page.evaluate(
                f"""text => {{
                  const {{ module_clicks: clicks, module_bets: bets, module_progress: progress,
                    module_widgets_done: done, module_live_model: live }} = dpoBook.modules;
                  const keep = (key, text) => {{
                    localStorage.clear();
                    if (text !== null) localStorage.setItem(key, text);
                  }};
                  const told = (read) => {{
                    try {{ return {{ found: read() }}; }} catch (error) {{
                      if (error.constructor !== Error) throw error;
                      return {{ said: error.message }};
                    }}
                  }};
                  const values = JSON.parse(text);
                  return JSON.stringify(({body})(...values));
                }}""",
                json.dumps(values),
            )
        )

    yield call
    page.close()


CHANGE = """(text, come) => {
  keep("dpo-book-clicks", text);
  const before = clicks.kept();
  const full = clicks.change([], [come]);
  const after = clicks.kept();
  const again = clicks.fromJsonl(clicks.toJsonl(after.rows));
  const aside = localStorage.getItem("dpo-book-clicks-unread");
  clicks.erase();
  return { before, full, after, again, aside, left: localStorage.length };
}"""


@given(any_rows | st.lists(good | foreign_rows.map(lambda row: (row, False)), max_size=3))
@tried(20)
def test_the_good_rows_that_a_browser_keeps_are_found(modules, rows):
    text = json.dumps({"version": 1, "rows": [row for row, _ in rows]})
    found = modules(CHANGE, text, NEW)
    right = [clean(row) for row, sound in rows if sound]
    left = len(rows) - len(right)
    assert found["before"]["rows"] == right
    assert found["before"]["note"] == (
        f"{left} of the {len(rows)} rows kept here cannot be read: left out." if left else ""
    )
    assert found["after"] == {"rows": [*right, NEW], "note": ""}
    assert found["again"] == [clean(row, "file") for row in [*right, NEW]]
    assert found["aside"] == (text if left else None)
    assert (found["full"], found["left"]) == ("", 0)


@given(broken_texts)
@tried(15)
def test_what_a_browser_keeps_in_their_place_is_told_and_set_aside(modules, text):
    found = modules(CHANGE, text, NEW)
    assert found["before"]["rows"] == []
    assert "cannot be read" in found["before"]["note"]
    assert found["after"] == {"rows": [NEW], "note": ""}
    assert found["aside"] == text


JSONL = "(text) => told(() => clicks.fromJsonl(text))"
ALL = "(text) => told(() => done.fromFile(text, { done: {}, bets: {}, clicks: [] }))"


@given(any_rows, st.sampled_from(["\n", "\r\n", "\n\n"]))
@tried(20)
def test_a_file_of_rows_is_read_whole_or_its_first_fault_named(modules, rows, end):
    lines = [json.dumps(row) for row, _ in rows]
    found = modules(JSONL, end.join(lines))
    faults = [i for i, (_, sound) in enumerate(rows) if not sound]
    if not rows:
        assert found["said"].startswith("There is no row in this file")
    elif faults:
        line = 1 + faults[0] * end.count("\n")
        assert found["said"].startswith(f"Line {line}: ")
        assert found["said"].endswith("nothing was imported.")
    else:
        assert found["found"] == [clean(row, "file") for row, _ in rows]


@given(st.text(st.characters() | st.sampled_from('{}[]",:\n'), max_size=60) | broken_texts)
@tried(15)
def test_a_file_of_anything_is_refused_in_a_sentence(modules, text):
    for body in (JSONL, ALL):
        found = modules(body, text)
        assert found["said"].endswith(("nothing was imported.", "nothing was read."))


# --- the file of all that was done ---------------------------------------------------------------

values = st.floats(-9, 9) | nasty | st.integers(-9, 9)
good_bets = st.fixed_dictionaries(
    {"title": nasty, "bet": values | st.lists(values, max_size=2), "truth": st.none() | values}
)
no_value = st.dictionaries(nasty, finite, min_size=1, max_size=2) | st.sampled_from(
    [[1, [2]], True]
)
no_title = finite.filter(lambda value: not isinstance(value, str))
bet_parts = st.sampled_from(["title", "bet", "truth"])
bad_bets = st.one_of(
    finite.filter(lambda value: not isinstance(value, dict)),
    st.builds(lambda bet, value: {**bet, "title": value}, good_bets, no_title),
    st.builds(lambda bet, value: {**bet, "bet": value}, good_bets, no_value),
    st.builds(lambda bet, name: {k: v for k, v in bet.items() if k != name}, good_bets, bet_parts),
)
bet_names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
done_names = st.from_regex(r"(exercise|quiz) [0-9a-zA-Z_.-]{1,8}", fullmatch=True)


def any_part(names, sound, unsound):
    """Entries by name, each with whether it is sound."""
    return st.dictionaries(
        names, sound.map(lambda e: (e, True)) | unsound.map(lambda e: (e, False)), max_size=3
    )


files = st.fixed_dictionaries(
    {
        "done": any_part(done_names, days, finite.filter(lambda v: not isinstance(v, str)) | nasty),
        "bets": any_part(bet_names, good_bets, bad_bets),
        "clicks": st.lists(
            good | foreign_rows.map(lambda r: (r, True)) | bad_rows.map(lambda r: (r, False)),
            max_size=3,
        ),
    }
)
FILE = """(text, file) => {
  const nothing = { done: {}, bets: {}, clicks: [] };
  const { fresh, ...counts } = done.fromFile(text, nothing);
  keep("x", null);
  progress.keepDone(fresh.done);
  bets.keepBets(fresh.bets);
  clicks.change([], fresh.clicks);
  const here = { done: progress.done(), bets: bets.allBets(), clicks: clicks.kept().rows };
  const again = done.fromFile(done.toFile(here), here);
  return { here, counts, note: clicks.kept().note, again };
}"""


def pair_of(row):
    return (row["prompt"], frozenset([row["chosen"], row["rejected"]]))


@given(files, st.dictionaries(st.sampled_from(["notes", *PROTOTYPE]), finite, max_size=1))
@tried(20)
def test_what_is_sound_in_a_file_of_what_was_done_is_kept_and_the_rest_counted(
    modules, file, unknown
):
    head = {"kind": "dpo-book", "version": 1, "day": "2026-11-02"}
    parts = {
        name: {key: entry for key, (entry, _) in file[name].items()} for name in ("done", "bets")
    }
    text = json.dumps({**unknown, **parts, "clicks": [row for row, _ in file["clicks"]], **head})
    found = modules(FILE, text)
    here = {name: {k: e for k, (e, sound) in file[name].items() if sound} for name in parts}
    rows = {}
    for row, sound in file["clicks"]:
        if sound:
            source = row["from"] if row["from"] in SOURCES else "file"
            rows.setdefault(pair_of(row), clean(row, source))
    here["clicks"] = [*rows.values()]
    assert found["here"] == here
    assert found["note"] == ""
    everything = [sound for part in ("done", "bets") for _, sound in file[part].values()]
    everything += [sound for _, sound in file["clicks"]]
    counts = found["counts"]
    assert counts["unsound"] == everything.count(False) + len(unknown)
    assert counts["added"] == sum(map(len, here.values()))
    assert counts["added"] + counts["present"] == everything.count(True)
    assert found["again"]["added"] == found["again"]["unsound"] == 0


KEPT = """(done, bets_) => {
  const aside = (key) => localStorage.getItem(`${key}-unread`);
  keep("dpo-book-done", done);
  progress.markDone("quiz", "9.9");
  const first = [progress.done(), aside("dpo-book-done")];
  keep("dpo-book-bets", bets_);
  bets.keepBet("new", { title: "t", bet: 1, truth: null });
  return [first, [bets.allBets(), aside("dpo-book-bets")]];
}"""


@given(files, broken_texts | st.just(None))
@tried(15)
def test_what_cannot_be_read_of_bets_and_days_is_set_aside(modules, file, other):
    named = [{key: entry for key, (entry, _) in file[name].items()} for name in ("done", "bets")]
    texts = [json.dumps(named[0]), json.dumps({"version": 1, "bets": named[1]})]
    days_here = {k: d for k, d in named[0].items() if isinstance(d, str)}
    bets_here = {k: e for k, (e, sound) in file["bets"].items() if sound}
    (done, done_aside), (bets, bets_aside) = modules(KEPT, *texts)
    assert done.pop("quiz 9.9")
    assert done == {k: d for k, d in days_here.items() if k != "quiz 9.9"}
    assert done_aside == (texts[0] if len(days_here) < len(named[0]) else None)
    assert bets.pop("new")
    assert bets == {k: e for k, e in bets_here.items() if k != "new"}
    assert bets_aside == (texts[1] if len(bets_here) < len(named[1]) else None)
    (_, done_aside), (bets, aside) = modules(KEPT, None, other)
    assert [*bets] == ["new"]
    assert (done_aside, aside) == (None, other)


LOSS = """(text) => {
  keep("dpo-book-loss", text);
  const first = live.recall("loss");
  live.remember("loss", "mine");
  return [first, live.recall("loss"), localStorage.getItem("dpo-book-loss-unread")];
}"""
any_json = finite.map(json.dumps) | broken_texts


@given(any_json)
@tried(15)
def test_a_loss_is_recalled_and_what_stands_in_its_place_set_aside(modules, text):
    value = json.loads(text) if is_json(text) else {}
    first, second, aside = modules(LOSS, text)
    assert first == (value if isinstance(value, str) else None)
    assert second == "mine"
    assert aside == (None if value is None or isinstance(value, str) else text)


FULL = """(keys, text, rows) => {
  const keepAll = () => [
    bets.keepBets({ new: { title: "t", bet: 1, truth: null } }),
    progress.keepDone({ "quiz 9.9": "2026-11-02" }),
  ];
  localStorage.clear();
  for (const key of keys) localStorage.setItem(key, text);
  const { setItem } = Storage.prototype;
  Storage.prototype.setItem = function (key, value) {
    if (key.endsWith("-unread")) throw new Error("full");
    setItem.call(this, key, value);
  };
  const said = [clicks.change([], rows), ...keepAll()];
  live.remember("loss", "mine");
  const left = { ...localStorage };
  localStorage.clear();
  Storage.prototype.setItem = () => { throw new Error("full"); };
  const full = keepAll();
  Storage.prototype.setItem = setItem;
  clicks.erase();
  return { said, left, full };
}"""


def test_what_cannot_be_set_aside_is_not_written_over(modules):
    keys = [f"dpo-book-{name}" for name in ("clicks", "bets", "done", "loss")]
    found = modules(FULL, keys, "[1", [NEW])
    assert found["left"] == dict.fromkeys(keys, "[1")
    told, *kept = found["said"]
    assert told.startswith("This browser keeps nothing here")
    assert kept == found["full"] == [False, False]


# --- the widgets ---------------------------------------------------------------------------------

MOUNT = """([html, kept, file]) => new Promise((resolve) => {
  for (const [key, text] of kept) localStorage.setItem(key, text);
  document.body.innerHTML = html;
  dpoBook.mount();
  const input = document.querySelector(".dpo-done input[type=file]");
  const carried = new DataTransfer();
  carried.items.add(new File([file], "f.json"));
  input.files = carried.files;
  input.dispatchEvent(new Event("change"));
  setTimeout(() => resolve({
    tags: [...new Set([...document.body.querySelectorAll("*")].map((node) => node.tagName))],
    wild: [...document.body.querySelectorAll("*")].flatMap((node) => node.getAttributeNames())
      .filter((name) => /^on|^srcdoc$|^src$/.test(name)),
    mounted: document.querySelectorAll(".dpo-status").length,
    loss: localStorage.getItem("dpo-book-loss"),
    hits: window.hits ?? [],
  }), 40);
})"""


def as_bets(bets):
    return json.dumps({"version": 1, "bets": bets})


NO_STRING = {"toString": 1, "valueOf": 1}  # which a template cannot hold
KEEPERS = [  # every widget that keeps something, or reads what is kept
    *((cls, cls.build_spec()) for cls in (Annotator, YourClicks, WriteTheLoss, TrainItYourself)),
    (Quiz, Quiz.spec_of("2")),
    (Exercise, Exercise.spec_of("2.1")),
    (Done, Done.spec_of(LIST)),
    *((Bet, spec) for spec in BETS),
]
TAGS = (
    "DIV P SPAN BUTTON PROGRESS TABLE CAPTION THEAD TBODY TR TH TD DETAILS SUMMARY UL LI A B I "
    "INPUT LABEL FIELDSET LEGEND SUB SCRIPT OUTPUT SELECT OPTION TEXTAREA PRE "
    "svg g path line polyline text tspan"
)
USED = {*TAGS.split()}


@given(
    st.lists(good_rows | bad_rows | foreign_rows, max_size=3)
    .map(lambda rows: json.dumps({"version": 1, "rows": rows}))
    | broken_texts,
    st.dictionaries(done_names | nasty, days | finite, max_size=3).map(json.dumps) | broken_texts,
    st.dictionaries(bet_names | st.sampled_from(["drafts", "bland", "way"]) | nasty,
                    good_bets | bad_bets, max_size=3)
    .map(as_bets)
    | broken_texts,
    st.lists(good_rows | bad_rows, max_size=2)
    .map(lambda rows: json.dumps({"kind": "dpo-book", "version": 1, "clicks": rows}))
    | broken_texts,
    any_json,
)  # fmt: skip
@example("[]", json.dumps({"exercise 2.1": NO_STRING, "w": NO_STRING}), "{", "[", "{}")
@example("[]", "{", as_bets({"w": {"title": "t", "bet": NO_STRING}}), "", "[1]")
@example("[]", "[]", as_bets({"way": {"title": "t", "bet": [1, 9], "truth": None}}), "", "3")
@tried(8, parts=10)
def test_the_widgets_show_any_of_it_as_text(mounted, clicks, done, bets, file, loss):
    keys = ("dpo-book-clicks", "dpo-book-done", "dpo-book-bets", "dpo-book-loss")
    kept = [*zip(keys, (clicks, done, bets, loss), strict=True)]
    found = mounted(kept, file)
    assert found["mounted"] == len(KEEPERS)
    assert found["loss"] == loss
    assert {*found["tags"]} <= USED
    assert found["wild"] == found["hits"] == []


@pytest.fixture(scope="module")
def mounted(browser, tmp_path_factory):
    """Mount the widgets that read what is kept, in a fresh page, and import a file."""
    page_file = tmp_path_factory.mktemp("mounted") / "page.html"
    address = write_page(page_file, "", join.static_script([spec.kind for _, spec in KEEPERS]))
    html = "".join(cls.static_html(spec) for cls, spec in KEEPERS)
    page = browser.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.add_init_script("window.hits = []; window.ran = (n) => window.hits.push(n);")

    def mount(kept, file):
        page.goto(address)
        page.evaluate("localStorage.clear()")
        found = page.evaluate(MOUNT, [html, kept, file])
        assert faults == []
        return found

    yield mount
    page.close()
