"""The widgets in which the reader trains the model: from file://, with no kernel and no network."""

import html
import itertools
import json
import re

import pytest

from dpo_lib import widgets
from dpo_lib.widgets import Annotator, ThreeClicks, TrainItYourself, WriteTheLoss, join, live
from dpo_lib.widgets.clicks import annotator_rows
from dpo_lib.widgets.three_clicks import PAIRS
from dpo_lib.widgets.train_it_yourself import SHORT, SHOWN
from dpo_lib.world import find_prompt, load_pairs, true_reward, world_tokenizer
from tests.widgets import test_drawn
from tests.widgets.looks import PHONE, assert_accessible, assert_fits, colors_of

LIVE = [
    kind
    for kind in join.kinds()
    if "model" in getattr(widgets, widgets.class_name(kind)).parts  # those that run the model
]
RIGHT = """\
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -log_sigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
"""
TURNED = RIGHT.replace("-log_sigmoid(beta", "-log_sigmoid(-beta")
NAIVE = RIGHT.replace(" - ref_chosen", "").replace(" - ref_rejected", "")
CHECKS = [  # code, how the answer begins, how many cases it fails
    (RIGHT, "All cases are right", 0),
    (TURNED, "The sign of the margin is turned", 6),
    (NAIVE, "The reference is missing", 6),
    (RIGHT.replace("beta *", "1 *"), "β is missing", 3),
    (RIGHT.replace("-log_sigmoid", "log_sigmoid"), "The value is right but for", 6),
    (RIGHT.replace("ref_chosen)", "ref_rejected)", 1).replace(
        "rejected - ref_rejected", "rejected - ref_chosen"), "The two reference", 6),
    (RIGHT.replace("-log_sigmoid(", "-2 * log_sigmoid("), "You return 2 times", 6),
    ("def dpo_loss(a, b, c, d, e):\n    return q\n", "Your code stops with an error", 7),
    ("import math\n\n\nx = (\n", "Line 5: SyntaxError", None),
]  # fmt: skip


READ = [
    {"prompt": "List two fruits.", "chosen": "pear and melon.", "rejected": "I do not know."},
    {"prompt": "What is 2 + 2?", "chosen": "2 + 2 is 4.", "rejected": "2 + 2 is 5."},
]
UNREAD = [  # a word the model does not know, in each place; a text that is too long for it; nothing
    READ[0] | {"prompt": "List two zebras."},
    READ[0] | {"chosen": "zebra and melon."},
    READ[1] | {"rejected": 100 * "4 "},
    READ[1] | {"rejected": "__"},
]


def test_the_model_is_not_loaded_before_it_is_asked_for(open_widget):
    first, *others = (getattr(widgets, widgets.class_name(kind)) for kind in LIVE)
    opened = open_widget(first, beside=[cls.build_spec() for cls in others])
    assert opened.page.locator(".dpo-widget").count() == len(LIVE) > 4
    opened.page.wait_for_timeout(300)
    assert opened.loaded() == []


@pytest.mark.parametrize("kind", LIVE)
def test_a_notebook_s_widget_carries_what_a_page_loads(kind):
    widget = getattr(widgets, widgets.class_name(kind))()
    assert set(widget.plot.parts) == set(widget.parts) >= {"engine", "model"}
    assert widget.plot.parts["model"] == live.model()
    assert "weights" not in widget._repr_mimebundle_()["text/html"]


# --- three clicks ----------------------------------------------------------------------------


class TestThreeClicks:
    def test_the_pairs_are_the_model_s_own(self):
        drawn = {(p.prompt, frozenset((p.first, p.second))) for p in load_pairs()}
        assert all((p, frozenset(texts)) in drawn for p, *texts in PAIRS)

    def test_training_needs_all_three_and_changes_the_answers(self, open_widget):
        opened = open_widget(ThreeClicks)
        first = re.findall(r"[^>]+(?=</button>)", ThreeClicks.preview(ThreeClicks.build_spec()))
        buttons = opened.page.get_by_role("button").all_text_contents()
        assert buttons == [html.unescape(text) for text in first]  # nothing changes its place
        better = [max(texts, key=lambda t, p=p: true_reward(p, t)) for p, *texts in PAIRS]
        for text in better[:2]:
            opened.press(text)
        opened.page.get_by_role("button", name="Train").evaluate("node => node.click()")
        opened.wait_for("1 of 3 answers")
        assert opened.loaded() == []
        opened.press(better[2])
        opened.press("Train")
        opened.page.wait_for_function("document.querySelector('progress').value > 3")
        train = opened.page.get_by_role("button", name="Train", exact=True)
        assert train.get_attribute("aria-disabled") == "true"
        opened.page.locator('.dpo-choice[aria-pressed="false"]').first.click()  # too late
        assert opened.status() == "Training on your clicks …"
        pressed = opened.page.locator('.dpo-choice[aria-pressed="true"]').all_text_contents()
        assert pressed == better
        opened.wait_for("Trained")
        assert train.get_attribute("aria-disabled") == "false"
        assert opened.page.locator("progress").evaluate("n => n.value === n.max")
        prompts = ThreeClicks.build_spec().data["shown"]
        before, now = zip(*opened.answers(), strict=True)
        rewards = [sum(map(true_reward, prompts, texts)) for texts in (before, now)]
        assert rewards[1] > rewards[0] + 2
        assert sorted(opened.loaded()) == ["engine", "model"]
        assert_accessible(opened.page)
        assert_fits(opened.page)

    def test_the_keyboard_is_enough(self, open_widget):
        opened = open_widget(ThreeClicks)
        for _ in PAIRS:
            opened.page.keyboard.press("Tab")
            opened.page.keyboard.press("Space")
            opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")
        opened.wait_for("Trained")
        pressed = opened.page.locator('.dpo-choice[aria-pressed="true"]').all_text_contents()
        assert pressed == [first for _, first, _ in PAIRS]

    def test_reset_forgets_the_run(self, open_widget):
        opened = open_widget(ThreeClicks)
        pick_the_first(opened)
        opened.press("Train")
        opened.page.wait_for_function("document.querySelector('progress').value > 3")
        opened.press("Reset")
        opened.wait_for("3 of 3 answers")
        opened.page.wait_for_timeout(200)
        assert opened.page.locator("progress").evaluate("node => node.value") == 0
        assert {cell for row in opened.answers() for cell in row} == {"–"}
        assert opened.status().startswith("3 of 3")


def pick_the_first(opened):
    for card in opened.page.locator(".dpo-clicks .dpo-choice:nth-child(2)").all():
        card.click()


# --- new pairs in chapter 1 ------------------------------------------------------------------


class TestFreshPairs:
    def test_the_model_writes_new_pairs_which_are_kept_like_the_others(self, open_widget):
        opened = open_widget(Annotator)
        opened.keep(annotator_rows())
        opened.wait_for("All 24 pairs seen: 24 in your file, 0 skipped.")
        opened.press("New pairs")
        opened.wait_for("24 in your file, 0 skipped. Next is pair 25 of")
        opened.page.wait_for_timeout(400)
        opened.page.keyboard.press("1")
        opened.wait_for("25 in your file")
        row = opened.page.evaluate("dpoBook.modules.module_clicks.kept().rows.at(-1)")
        assert row["from"] == "fresh"
        assert find_prompt(row["prompt"])
        world_tokenizer().encode(row["chosen"] + row["rejected"])
        opened.page.reload()
        opened.wait_for("All 25 pairs seen: 25 in your file, 0 skipped.")
        assert opened.page.get_by_role("cell", name=row["chosen"], exact=True).count() >= 1
        assert sorted(set(opened.loaded())) == ["engine", "model"]

    def test_reset_ends_the_asking(self, open_widget):
        opened = open_widget(Annotator)
        opened.keep(annotator_rows())
        opened.press("New pairs")
        opened.press("Reset")
        opened.wait_for("A practice pair and 24 pairs")
        opened.page.wait_for_timeout(1500)
        assert opened.status().startswith("A practice pair and 24 pairs")
        assert opened.page.evaluate("localStorage.length") == 0


# --- train it yourself -----------------------------------------------------------------------

UPDATED = "() => /^[1-9][0-9]* updates/.test(document.querySelector('.dpo-status').textContent)"
POINTS = """() => {
  const count = (path) => (path.getAttribute("d") ?? "").split("L").length;
  const plots = [...document.querySelectorAll(".dpo-plot")];
  return plots.map((svg) => [...svg.querySelectorAll("path.dpo-curve")].map(count));
}"""


CHOICES_BELOW = """() => [...document.querySelectorAll("select")].map((select) =>
  select.labels[0].getBoundingClientRect().bottom <= select.getBoundingClientRect().top)"""


def said_by_python(words):
    """What Python says of the numbers that a run's words hold."""
    reward, kl = (
        float(words.split(start)[1].split(end)[0].replace("−", "-"))
        for start, end in (("reward ", ","), ("KL ", " nats"))
    )
    malformed = int(words.split("malformed ")[1].split(" %")[0]) / 100
    progress = {"updates": int(words.split()[0]), "reward": reward, "kl": kl}
    values = TrainItYourself.build_spec().values
    values["progress"] = progress | {"malformed": malformed, "note": ""}
    return TrainItYourself.describe(values)


def wait_for_legend(opened, said):
    opened.page.wait_for_function(
        "said => document.querySelector('.dpo-lab-legend').textContent.split('Gray:')[0]"
        ".includes(said) && document.querySelector('.dpo-tile .dpo-value').textContent != '–'",
        arg=said,
    )


def runs_of(opened):
    """What the legend says of the present run and of the last, as far as its clicks."""
    legend = opened.page.locator(".dpo-lab-legend").text_content()
    said = legend.removeprefix("In color: ").split(" Gray: ")
    return [run[: run.index(").") + 1] for run in said]


def pairs_of(opened):
    return int(opened.tile("pairs"))


def open_short(open_widget, name):
    spec = TrainItYourself.short_spec(name)
    opened = open_widget(TrainItYourself, spec)
    opened.first = TrainItYourself.describe(spec.values)
    assert opened.status() == opened.first
    assert opened.page.locator(".dpo-control").count() == len(spec.controls) <= 2
    assert opened.page.locator(".dpo-plot").count() == len(spec.data["panels"]) == 2
    assert_fits(opened.page)
    assert opened.page.evaluate(CHOICES_BELOW) == [True] * opened.page.locator("select").count()
    return opened


class TestTrainItYourself:
    def test_prompts_are_the_world_s(self):
        assert all(find_prompt(prompt) for prompt in SHOWN)
        assert all(world_tokenizer().encode(prompt) for prompt in SHOWN)

    def test_play_pause_step_and_a_second_run(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.press("Play")
        opened.wait_for("20 updates in this page")
        slider = opened.page.get_by_role("slider", name="β")
        before = slider.get_attribute("aria-valuetext")
        slider.press("ArrowLeft")  # the page answers while it trains
        assert slider.get_attribute("aria-valuetext") != before
        opened.press("Pause")
        opened.page.get_by_role("button", name="Go on").wait_for()
        assert opened.status() == said_by_python(opened.status())
        updates = opened.page.locator(".dpo-tile", has_text="updates").locator(".dpo-value")
        made = int(updates.text_content())
        assert made >= 20
        opened.press("Step")
        opened.page.wait_for_function(
            "n => [...document.querySelectorAll('.dpo-tile')][1].textContent == `updates${n}`",
            arg=made + 1,
        )
        opened.page.get_by_role("slider", name="β").press("Home")
        opened.press("New run")
        opened.wait_for("10 updates in this page")
        opened.press("Pause")
        opened.page.get_by_role("button", name="Go on").wait_for()
        legend = opened.page.locator(".dpo-lab-legend").text_content()
        assert "In color: DPO, β = 0.032" in legend
        assert "Gray: DPO, β = 1," in legend
        assert_accessible(opened.page)
        assert_fits(opened.page)
        for last, now, *_ in opened.page.evaluate(POINTS):
            assert last >= 3
            assert now >= 2
        marked = opened.page.locator(".dpo-answers .dpo-text-policy").all_text_contents()
        assert marked == [now for before, now in opened.answers() if now != before] != []
        assert opened.loaded() == ["engine", "model"]

    def test_clicks_come_from_chapter_1(self, open_widget):
        chapter = open_widget(Annotator)
        chapter.page.get_by_role("button", name="Start").click()
        for key in ("1", "1", "2", "1"):
            chapter.page.wait_for_timeout(300)
            chapter.page.keyboard.press(key)
        chapter.page.get_by_text("Pair 4 of 24", exact=True).wait_for()
        opened = open_widget(TrainItYourself, labels="my clicks, one of them wrong")
        opened.press("Play")
        wait_for_legend(opened, "one of them wrong (3 of yours).")
        assert pairs_of(opened) == 3
        chapter.press("Reset")
        chapter.wait_for("A practice pair and 24 pairs")
        assert chapter.page.evaluate("localStorage.length") == 0

    def test_rows_that_are_of_no_use_are_told_and_stop_nothing(self, open_widget):
        opened = open_widget(TrainItYourself, labels="my clicks of chapter 1")
        opened.press("Play")
        wait_for_legend(opened, "(24 of a stored annotator’s: you have none yet).")
        assert pairs_of(opened) == len(annotator_rows()) == 24
        (present,) = runs_of(opened)
        for stored, said, pairs in (
            ([*READ, *UNREAD], "(6 of yours; 4 of them left out: not in the model’s words).", 2),
            (UNREAD, "(24 of a stored annotator’s: none of your 4 is in the model’s words).", 24),
            ([*READ, {"map": 1}], "1 of the 3 rows kept here cannot be read: left out.", 2),
        ):
            opened.put(stored)
            opened.press("Pause")
            opened.press("New run")
            wait_for_legend(opened, said)
            assert pairs_of(opened) == pairs
            last, (present, gray) = present, runs_of(opened)
            assert present != gray == last
        opened.page.wait_for_function(UPDATED)

    @pytest.mark.parametrize("name", [name for name in SHORT if name != "reference"])
    def test_a_short_form_is_the_same_widget_with_few_controls(self, open_widget, name):
        opened = open_short(open_widget, name)
        opened.press("Play")
        opened.wait_for("10 updates")
        opened.press("Reset")
        opened.wait_for(opened.first)

    def test_no_short_form_has_another_name(self):
        with pytest.raises(ValueError, match="'coins'"):
            TrainItYourself.short("coins")

    def test_pairs_both_ways_move_the_naive_model_and_not_dpo_s(self, open_widget):
        opened = open_short(open_widget, "reference")
        far = []
        for loss, button in (("naive, without a reference", "Play"), ("DPO, with it", "New run")):
            opened.page.get_by_role("combobox", name="Loss").select_option(label=loss)
            opened.press(button)
            opened.wait_for("60 updates")
            opened.press("Pause")
            opened.page.get_by_role("button", name="Go on").wait_for()
            far.append(float(opened.tile("KL").replace("−", "-")))
            assert pairs_of(opened) % 2 == 0
        assert far[0] > 0.2
        assert abs(far[1]) < 0.1

    def test_without_motion_nothing_runs_on(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.page.emulate_media(reduced_motion="reduce")
        opened.page.reload()
        opened.press("Ten updates")
        opened.wait_for("10 updates")
        opened.page.get_by_role("button", name="Ten updates").wait_for()  # not Pause
        assert opened.tile("updates") == "10"

    def test_a_file_that_is_missing_is_named(self, open_widget):
        opened = open_widget(TrainItYourself)
        (opened.file.parent / live.part_file("engine")).unlink()
        opened.press("Play")
        opened.wait_for("The file dpo-live-engine.js of this book could not be read.")
        opened.faults.clear()  # the browser reports the missing file too
        text = live.part_script("engine")
        (opened.file.parent / live.part_file("engine")).write_text(text, encoding="utf-8")
        opened.press("Play")
        opened.wait_for("0 updates")  # a failure is not kept


TILE_BEGINS = """start => [...document.querySelectorAll(".dpo-tile")]
  .some((tile) => new RegExp(start).test(tile.textContent))"""


# --- what is asked of the worker -------------------------------------------------------------

CHOSEN = {  # what the reader chooses, and what the worker is asked for
    ("DPO", "the true reward"): ("dpo", "true"),
    ("naive", "noisy people"): ("naive", "noisy"),
    ("SFT on winners", "coin flips"): ("sft", "coin"),
    ("DPO", "my clicks of chapter 1"): ("dpo", "clicks"),
    ("naive", "my clicks, one of them wrong"): ("naive", "wrong"),
}
KEEPS_ORDERS = """([obeys, scale]) => {
  window.orders = [];
  const at = (names, run, step) => Object.fromEntries(
    names.map((name) => [name, scale[name] * Number(run.split(" ")[1]) + step / 1000]));
  const look = (run, step) => ({
    step,
    ...at(["reward", "kl", "malformed"], run, step),
    answers: ["a", "b", "c", "d"].map((word, i) => ({ text: word + (i && step), reward: 0 })),
  });
  window.Worker = class {
    made = {};
    terminate() {}
    postMessage({ id, ask, ...values }) {
      orders.push({ ask, ...values });
      if (ask === "advance" && !obeys) return;
      const { run, steps } = values;
      const told = (data) => setTimeout(() => this.onmessage({ data }));
      for (let n = 0; ask === "advance" && n < steps; n++) {
        const step = (this.made[run] = (this.made[run] ?? 0) + 1);
        told({ run, row: { step, ...at(["loss", "chosen", "rejected", "accuracy"], run, step) } });
        if (step % 10 === 0) told({ run, look: look(run, step) });
      }
      const begun = () => ({ pairs: 7, unread: [], look: look(run, 0) });
      const judged = [false, "Not yet.", [1, 3]]; // the cases that a loss of one's own fails
      told({ id, answer: ask ? (ask === "begin" ? begun() : null) : judged });
    }
  };
}"""
SCALE = {  # of what a worker tells, times the number of the run
    "reward": -0.4, "kl": 0.3, "malformed": 0.04, "loss": 0.5, "chosen": 0.2, "rejected": -0.3,
    "accuracy": 0.25,
}  # fmt: skip
PANELS = {
    "true reward of fresh answers": {"reward": "policy"},
    "KL from the reference (nats)": {"kl": "policy"},
    "log π − log πref (nats)": {"chosen": "chosen", "rejected": "rejected"},
    "loss (nats)": {"loss": "ink"},
    "reward accuracy of the batch": {"accuracy": "ink"},
    "malformed answers, share": {"malformed": "ink"},
}


class TestOrders:
    def test_each_choice_is_asked_for_by_its_own_name(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.page.evaluate(KEEPS_ORDERS, [False, SCALE])
        disabled = []
        for loss, labels in CHOSEN:
            opened.page.get_by_role("combobox", name="Loss").select_option(label=loss)
            opened.page.get_by_role("combobox", name="Labels by").select_option(label=labels)
            opened.press("Play")
            opened.page.wait_for_function("() => orders.at(-1)?.ask === 'advance'")
            names = ("Step", "New run")
            buttons = [opened.page.get_by_role("button", name=n, exact=True) for n in names]
            disabled.append([button.get_attribute("aria-disabled") for button in buttons])
            opened.press("Reset")
            opened.page.evaluate("orders.push({})")
        orders = opened.page.evaluate("orders")
        begun = [(o["loss"], o["labels"]) for o in orders if o.get("ask") == "begin"]
        assert begun == list(CHOSEN.values())
        assert disabled == [["true", "true"]] * len(CHOSEN)

    def test_a_run_rests_at_every_200_and_what_it_sends_is_drawn(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.page.evaluate(KEEPS_ORDERS, [True, SCALE])

        def read():
            return opened.page.evaluate(f"() => {{ {test_drawn.READ} return read(document); }}")

        begun = read()
        assert not any(text for plot in begun["plots"] for _, text, *_ in plot["texts"])

        def press(name, updates):
            opened.press(name)
            opened.page.wait_for_function(TILE_BEGINS, arg=f"^updates{updates}$")
            opened.page.get_by_role("button", name="Go on").wait_for()

        for updates in (1, 2, 3):
            press("Step", updates)
        for updates in (200, 400):  # not 203 and 403
            press("Go on", updates)
        opened.page.get_by_role("combobox", name="Loss").select_option(label="naive")
        press("New run", 200)
        steps = [o["steps"] for o in opened.page.evaluate("orders") if o["ask"] == "advance"]
        assert steps == [1, 1, 1, 197, 200, 200]

        drawn = read()
        for found, (title, curves) in zip(drawn["plots"], PANELS.items(), strict=True):
            plot = test_drawn.Plot(found)
            assert [text for text, _ in found["titles"]] == ["updates", title]
            labels = {color: [name] for name, color in curves.items()}
            for name, color in curves.items():
                own, gray = plot.curves(f"dpo-stroke-{color}"), plot.curves("dpo-stroke-muted")
                assert plot.texts(color) == (labels[color] if len(curves) > 1 else [])
                every = 10 if name in ("reward", "kl", "malformed") else 1
                for points, run, last in ((own[0], 2, 200), (gray[[*curves].index(name)], 1, 400)):
                    made = [0] * (every > 1) + [*range(every, last + 1, every)]
                    assert [x for x, _ in points] == pytest.approx(made, abs=0.5)
                    values = [SCALE[name] * run + step / 1000 for step in made]
                    assert [y for _, y in points] == pytest.approx(values, abs=0.02)
                    assert all(plot.holds(*point) for point in points)
                for _, x, y in plot.some("texts", f"dpo-fill-text-{color}"):
                    assert plot.to_x(x) == pytest.approx(200, abs=30)
                    assert plot.to_y(y) == pytest.approx(own[0][-1][1], abs=0.1)
            assert not plot.holds(410, own[0][-1][1])
        assert dict(drawn["tiles"]) == {
            "pairs": "7",
            "updates": "200",
            "true reward": "−0.80 → −0.60",
            "KL (nats)": "0.80",
            "malformed answers": "28 %",
        }
        assert opened.answers()[:2] == [["a0", "a0"], ["b0", "b200"]]
        opened.press("Reset")
        opened.page.wait_for_function(TILE_BEGINS, arg="^updates0")
        assert read() == begun
        assert {cell for row in opened.answers() for cell in row} == {"–"}

    def test_a_loss_of_one_s_own_is_marked_and_trains_as_chapter_10_begins(self, open_widget):
        opened = open_widget(WriteTheLoss)
        opened.page.evaluate(KEEPS_ORDERS, [True, SCALE])

        def seen():
            marks = opened.page.locator(".dpo-check-mark").all()
            return [(mark.text_content(), colors_of(mark)[0]) for mark in marks]

        def numbers():
            return opened.page.locator(".dpo-value").all_text_contents(), opened.answers()

        begun = seen(), numbers()
        opened.press("Train")
        opened.wait_for("Trained with your loss")
        wrong, right = ("✗", "rejected"), ("✓", "policy")
        cases = len(WriteTheLoss.build_spec().data["cases"])
        assert seen() == [wrong if i in (1, 3) else right for i in range(cases)]
        values, written = numbers()
        assert values == ["60", "−0.40 → −0.34", "10 %"]
        assert written[:2] == [["a0", "a0"], ["b0", "b60"]]
        (order,) = [o for o in opened.page.evaluate("orders") if o.get("ask") == "begin"]
        first = TrainItYourself.build_spec().values
        assert (order["beta"], order["rate"]) == (
            first["beta"],
            pytest.approx(first["rate"], rel=0.01),
        )
        assert (order["labels"], first["labels"]) == ("true", "the true reward")
        opened.page.get_by_role("textbox").press("End")
        opened.page.keyboard.type(" ")
        opened.wait_for("Complete the function")
        assert (seen(), numbers()) == (begun[0], (values, written))
        opened.press("Reset")
        opened.page.wait_for_function(TILE_BEGINS, arg="^updates0")
        assert (seen(), numbers()) == begun


ANSWERS = """prompts => {
  const main = document.createElement("main");
  document.body.replaceChildren(main);
  const set = dpoBook.modules.module_answers.answers(main, prompts);
  const cells = () => [...main.querySelectorAll("td")].map((n) => [n.textContent, n.className]);
  const said = (text) => text === null ? null : { text, reward: 0 };
  return { at: (...states) => states.map(([i, column, text]) => {
    set(i, column, said(text));
    const { firstChild } = main.querySelectorAll("td")[2 * i + column];
    set(i, column, said(text));
    if (!firstChild.isConnected) throw new Error("what the reader has marked is gone");
    return cells();
  }) };
}"""


def test_answers_stand_beside_their_prompts_and_a_new_one_in_color(browser):
    page = browser.new_page()
    page.set_content(f"<style>{join.static_css()}</style>")
    page.add_script_tag(content=join.static_script(["three_clicks"]))
    steps = [
        (0, 0, "a", ["a", "–", "–", "–"], []),
        (0, 1, "a", ["a", "a", "–", "–"], []),
        (1, 0, "b", ["a", "a", "b", "–"], []),
        (1, 1, "", ["a", "a", "b", "(nothing)"], [3]),
        (0, 1, "c", ["a", "c", "b", "(nothing)"], [1, 3]),
        (1, 1, "b", ["a", "c", "b", "b"], [1]),
        (0, 1, None, ["a", "–", "b", "b"], []),
        (0, 0, None, ["–", "–", "b", "b"], []),
    ]
    given = [step[:3] for step in steps]
    seen = page.evaluate(
        f"([prompts, steps]) => ({ANSWERS})(prompts).at(...steps)", [["p", "q"], given]
    )
    assert seen == [
        [[text, "dpo-text-policy" if i in new else ""] for i, text in enumerate(texts)]
        for *_, texts, new in steps
    ]
    table = page.locator("table")
    assert table.get_attribute("class") == "dpo-answers"
    caption = table.locator("caption")  # for who hears the page
    assert caption.text_content() == "What the model writes, before training and now"
    assert caption.bounding_box()["width"] <= 1
    rows = [row.locator("th, td").all_text_contents() for row in table.get_by_role("row").all()]
    assert rows == [["prompt", "before", "now"], ["p", "–", "–"], ["q", "b", "b"]]
    heads = table.locator("th").evaluate_all("all => all.map((n) => [n.textContent, n.scope])")
    assert heads == [*([name, "col"] for name in rows[0]), ["p", "row"], ["q", "row"]]
    page.close()


# --- write the loss --------------------------------------------------------------------------


class TestWriteTheLoss:
    def test_a_check_answers_in_words(self, open_widget):
        opened = open_widget(WriteTheLoss)
        editor = opened.page.get_by_role("textbox")
        for width in (730, PHONE):  # as wide as the text of a page is, and a phone
            opened.page.set_viewport_size({"width": width, "height": 800})
            assert editor.evaluate("node => node.scrollWidth <= node.clientWidth")
        for (code, words, wrong), key in zip(
            CHECKS, itertools.cycle(("Control", "Meta")), strict=False
        ):
            editor.fill(code)
            editor.press(f"{key}+Enter")
            opened.wait_for(words)
            marks = opened.page.locator(".dpo-check-mark").all_text_contents()
            assert marks.count("✗") == (wrong or 0), words
            assert marks.count("·") == (7 if wrong is None else 0), words
        assert sorted(opened.loaded()) == ["exercises", "python"]

    def test_an_endless_loop_is_stopped_and_the_page_goes_on(self, open_widget):
        opened = open_widget(WriteTheLoss)
        editor = opened.page.get_by_role("textbox")
        editor.fill("def dpo_loss(a, b, c, d, e):\n    while True:\n        pass\n")
        opened.press("Check")
        opened.wait_for("Running your code")
        opened.page.wait_for_timeout(500)
        opened.press("Stop")
        opened.wait_for("Stopped.")
        opened.page.get_by_role("button", name="Stop").evaluate("node => node.click()")  # again
        editor.fill(RIGHT)
        opened.press("Check")
        opened.wait_for("All cases are right")

    def test_training_that_was_stopped_can_begin_again(self, open_widget):
        opened = open_widget(WriteTheLoss)
        opened.page.get_by_role("textbox").fill(RIGHT)
        for _ in range(2):
            opened.press("Train")
            for updates in ("0", "[1-9]"):
                opened.page.wait_for_function(TILE_BEGINS, arg=f"^updates{updates}")
            opened.press("Stop")
            opened.wait_for("Stopped.")

    def test_the_right_loss_helps_and_the_turned_one_harms(self, open_widget):
        rewards = []
        chapter = open_widget(TrainItYourself, loss="mine, from chapter 9")
        chapter.press("Play")
        chapter.wait_for("There is no loss of yours yet")
        opened = open_widget(WriteTheLoss)
        for code in (RIGHT, TURNED):
            opened.page.get_by_role("textbox").fill(code)
            opened.press("Train")
            opened.wait_for("Training with your loss")
            opened.wait_for("Trained with your loss")
            tile = opened.tile("true reward").replace("−", "-")
            rewards.append([float(number) for number in tile.split(" → ")])
        assert rewards[0][0] == rewards[1][0]
        assert rewards[0][1] > rewards[0][0] + 0.3
        assert rewards[1][1] < rewards[1][0] - 0.3
        stored = opened.page.evaluate("localStorage.getItem('dpo-book-loss')")
        assert json.loads(stored) == TURNED

        assert_accessible(opened.page)
        assert_fits(opened.page)

        chapter.press("Play")
        chapter.wait_for("10 updates")
