"""The widgets in which the reader trains the model: from file://, with no kernel and no network."""

import json

import pytest
from axe_playwright_python.sync_playwright import Axe

from dpo_lib import widgets
from dpo_lib.widgets import Annotator, ThreeClicks, TrainItYourself, WriteTheLoss, join, live
from dpo_lib.widgets.clicks import annotator_rows
from dpo_lib.widgets.three_clicks import PAIRS
from dpo_lib.widgets.train_it_yourself import SHORT, SHOWN
from dpo_lib.world import find_prompt, load_pairs, true_reward, world_tokenizer
from tests.widgets.axe_rules import OF_WHOLE_PAGES

LIVE = [
    kind
    for kind in join.kinds()
    if "model" in getattr(widgets, widgets.class_name(kind)).parts  # those that run the model
]
PHONE = 360
RIGHT = """\
def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    return -log_sigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
"""
TURNED = RIGHT.replace("-log_sigmoid(beta", "-log_sigmoid(-beta")
NAIVE = RIGHT.replace(" - ref_chosen", "").replace(" - ref_rejected", "")


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


@pytest.mark.parametrize("kind", LIVE)
def test_the_model_is_not_loaded_before_it_is_asked_for(open_widget, kind):
    opened = open_widget(getattr(widgets, widgets.class_name(kind)))
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
        better = [max(texts, key=lambda t, p=p: true_reward(p, t)) for p, *texts in PAIRS]
        for text in better[:2]:
            opened.press(text)
        opened.page.get_by_role("button", name="Train").evaluate("node => node.click()")
        opened.wait_for("1 of 3 answers")
        assert opened.loaded() == []
        opened.press(better[2])
        opened.press("Train")
        opened.wait_for("Trained")
        prompts = ThreeClicks.build_spec().data["shown"]
        before, now = zip(*opened.answers(), strict=True)
        rewards = [sum(map(true_reward, prompts, texts)) for texts in (before, now)]
        assert rewards[1] > rewards[0] + 2
        assert sorted(opened.loaded()) == ["engine", "model"]

    def test_the_keyboard_is_enough(self, open_widget):
        opened = open_widget(ThreeClicks)
        for _ in PAIRS:
            opened.page.keyboard.press("Tab")
            opened.page.keyboard.press("Space")
            opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Tab")
        opened.page.keyboard.press("Enter")
        opened.wait_for("Trained")
        pressed = opened.page.locator('.dpo-pick[aria-pressed="true"]').all_text_contents()
        assert pressed == [first for _, first, _ in PAIRS]

    def test_reset_forgets_the_run(self, open_widget):
        opened = open_widget(ThreeClicks)
        pick_the_first(opened)
        opened.press("Train")
        opened.page.wait_for_function("document.querySelector('progress').value > 3")
        opened.press("Reset")
        opened.wait_for("3 of 3 answers")
        opened.page.wait_for_timeout(300)
        assert opened.page.locator("progress").evaluate("node => node.value") == 0
        assert {cell for row in opened.answers() for cell in row} == {"–"}
        assert opened.status().startswith("3 of 3")


def pick_the_first(opened):
    for card in opened.page.locator(".dpo-clicks .dpo-pick:nth-child(2)").all():
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


class TestTrainItYourself:
    def test_prompts_are_the_world_s(self):
        assert all(find_prompt(prompt) for prompt in SHOWN)
        assert all(world_tokenizer().encode(prompt) for prompt in SHOWN)

    def test_play_pause_step_and_a_second_run(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.press("Play")
        opened.wait_for("20 updates in this page")
        opened.press("Pause")
        opened.page.get_by_role("button", name="Go on").wait_for()
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
        for last, now, *_ in opened.page.evaluate(POINTS):
            assert last >= 3
            assert now >= 2
        assert opened.loaded() == ["engine", "model"]

    def test_words_follow_the_run_and_python_says_the_same(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.press("Play")
        opened.wait_for("10 updates")
        opened.press("Pause")
        opened.page.get_by_role("button", name="Go on").wait_for()
        opened.page.wait_for_timeout(600)
        words = opened.status()
        number = int(words.split()[0])
        reward, kl = (
            float(words.split(start)[1].split(end)[0].replace("−", "-"))
            for start, end in (("reward ", ","), ("KL ", " nats"))
        )
        malformed = int(words.split("malformed ")[1].split(" %")[0]) / 100
        values = TrainItYourself.build_spec().values
        progress = {"updates": number, "reward": reward, "kl": kl, "malformed": malformed}
        values["progress"] = progress | {"note": ""}
        assert TrainItYourself.describe(values) == words

    def test_clicks_come_from_chapter_1_or_from_a_stored_annotator(self, open_widget):
        first = open_widget(TrainItYourself, labels="my clicks of chapter 1")
        first.press("Play")
        first.wait_for("10 updates")
        legend = first.page.locator(".dpo-lab-legend")
        assert "(24 of a stored annotator’s: you have none yet)" in legend.text_content()
        pairs = first.page.locator(".dpo-tile", has_text="pairs").locator(".dpo-value")
        assert pairs.text_content() == str(len(annotator_rows())) == "24"

        chapter = open_widget(Annotator)
        chapter.page.get_by_role("button", name="Start").click()
        for key in ("1", "1", "2", "1"):
            chapter.page.wait_for_timeout(400)
            chapter.page.keyboard.press(key)
        chapter.page.get_by_text("Pair 4 of 24", exact=True).wait_for()
        second = open_widget(TrainItYourself, labels="my clicks, one of them wrong")
        second.press("Play")
        second.page.wait_for_function(UPDATED)
        assert (
            "one of them wrong (3 of yours)."
            in second.page.locator(".dpo-lab-legend").text_content()
        )
        pairs = second.page.locator(".dpo-tile", has_text="pairs").locator(".dpo-value")
        assert pairs.text_content() == "3"
        chapter.press("Reset")
        chapter.page.wait_for_timeout(200)
        assert chapter.page.evaluate("localStorage.length") == 0

    @pytest.mark.parametrize(
        ("stored", "said", "pairs"),
        [
            ([*READ, *UNREAD], "my clicks of chapter 1 (6 of yours; 4 of them left out: not", 2),
            (UNREAD, "(24 of a stored annotator’s: none of your 4 is in the model’s words)", 24),
            ([*READ, {"map": 1}], "1 of the 3 rows kept here cannot be read: left out.", 2),
        ],
    )
    def test_rows_that_are_of_no_use_are_told_and_stop_nothing(
        self, open_widget, stored, said, pairs
    ):
        opened = open_widget(TrainItYourself, labels="my clicks of chapter 1")
        opened.keep(stored)
        opened.press("Play")
        opened.page.wait_for_function(UPDATED)
        assert said in opened.page.locator(".dpo-lab-legend").text_content()
        tile = opened.page.locator(".dpo-tile", has_text="pairs").locator(".dpo-value")
        assert tile.text_content() == str(pairs)

    def test_a_loss_of_one_s_own_is_asked_for(self, open_widget):
        opened = open_widget(TrainItYourself, loss="mine, from chapter 9")
        opened.press("Play")
        opened.wait_for("There is no loss of yours yet")

    @pytest.mark.parametrize("name", SHORT)
    def test_a_short_form_is_the_same_widget_with_few_controls(self, open_widget, name):
        spec = TrainItYourself.short_spec(name)
        opened = open_widget(TrainItYourself, spec)
        assert opened.status() == TrainItYourself.describe(spec.values)
        assert opened.page.locator(".dpo-control").count() == len(spec.controls) <= 2
        assert opened.page.locator(".dpo-plot").count() == len(spec.data["panels"]) == 2
        opened.press("Play")
        opened.wait_for("10 updates")
        opened.press("Reset")
        opened.wait_for(TrainItYourself.describe(spec.values))

    def test_no_short_form_has_another_name(self):
        with pytest.raises(ValueError, match="'coins'"):
            TrainItYourself.short("coins")

    def test_pairs_both_ways_move_the_naive_model_and_not_dpo_s(self, open_widget):
        opened = open_widget(TrainItYourself, TrainItYourself.short_spec("reference"))
        far = []
        for loss, button in (("naive, without a reference", "Play"), ("DPO, with it", "New run")):
            opened.page.get_by_role("combobox", name="Loss").select_option(label=loss)
            opened.press(button)
            opened.wait_for("60 updates")
            opened.press("Pause")
            opened.page.get_by_role("button", name="Go on").wait_for()
            tile = opened.page.locator(".dpo-tile", has_text="KL").locator(".dpo-value")
            far.append(float(tile.text_content().replace("−", "-")))
            pairs = opened.page.locator(".dpo-tile", has_text="pairs").locator(".dpo-value")
            assert int(pairs.text_content()) % 2 == 0
        assert far[0] > 0.2
        assert abs(far[1]) < 0.1

    def test_without_motion_nothing_runs_on(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.page.emulate_media(reduced_motion="reduce")
        opened.page.reload()
        opened.press("Ten updates")
        opened.wait_for("10 updates")
        opened.page.wait_for_timeout(700)
        assert opened.status().startswith("10 updates")

    def test_the_page_answers_while_it_trains(self, open_widget):
        opened = open_widget(TrainItYourself)
        opened.press("Play")
        opened.wait_for("10 updates")
        opened.press("Pause")
        slider = opened.page.get_by_role("slider", name="β")
        before = slider.get_attribute("aria-valuetext")
        slider.press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext") != before

    def test_a_file_that_is_missing_is_named(self, open_widget):
        opened = open_widget(TrainItYourself)
        (opened.file.parent / live.part_file("engine")).unlink()
        opened.press("Play")
        opened.wait_for("The file dpo-live-engine.js of this book could not be read.")
        opened.faults.clear()  # the browser reports the missing file too
        text = live.part_script("engine")
        (opened.file.parent / live.part_file("engine")).write_text(text, encoding="utf-8")
        opened.press("Play")
        opened.wait_for("10 updates")  # a failure is not kept


# --- write the loss --------------------------------------------------------------------------


class TestWriteTheLoss:
    @pytest.mark.parametrize(
        ("code", "words", "wrong"),
        [
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
        ],
    )  # fmt: skip
    def test_a_check_answers_in_words(self, open_widget, code, words, wrong):
        opened = open_widget(WriteTheLoss)
        opened.page.get_by_role("textbox").fill(code)
        opened.page.get_by_role("textbox").press("Control+Enter")
        opened.wait_for(words)
        marks = opened.page.locator(".dpo-check-mark").all_text_contents()
        assert marks.count("✗") == (wrong or 0)
        assert marks.count("·") == (7 if wrong is None else 0)
        assert sorted(opened.loaded()) == ["exercises", "python"]

    def test_the_lines_to_complete_fit_into_the_editor(self, open_widget):
        editor = open_widget(WriteTheLoss).page.get_by_role("textbox")
        for width in (730, PHONE):  # as wide as the text of a page is, and a phone
            editor.page.set_viewport_size({"width": width, "height": 800})
            assert editor.evaluate("node => node.scrollWidth <= node.clientWidth")

    def test_an_endless_loop_is_stopped_and_the_page_goes_on(self, open_widget):
        opened = open_widget(WriteTheLoss)
        editor = opened.page.get_by_role("textbox")
        editor.fill("def dpo_loss(a, b, c, d, e):\n    while True:\n        pass\n")
        opened.press("Check")
        opened.wait_for("Running your code")
        opened.page.wait_for_timeout(500)
        opened.press("Stop")
        opened.wait_for("Stopped.")
        editor.fill(RIGHT)
        opened.press("Check")
        opened.wait_for("All cases are right")

    def test_the_right_loss_helps_and_the_turned_one_harms(self, open_widget):
        rewards = []
        opened = open_widget(WriteTheLoss)
        for code in (RIGHT, TURNED):
            opened.page.get_by_role("textbox").fill(code)
            opened.press("Train")
            opened.wait_for("Training with your loss")
            opened.wait_for("Trained with your loss")
            tile = opened.page.locator(".dpo-tile", has_text="true reward").locator(".dpo-value")
            rewards.append([float(x.replace("−", "-")) for x in tile.text_content().split(" → ")])
        assert rewards[0][0] == rewards[1][0]
        assert rewards[0][1] > rewards[0][0] + 0.3
        assert rewards[1][1] < rewards[1][0] - 0.3
        stored = opened.page.evaluate("localStorage.getItem('dpo-book-loss')")
        assert json.loads(stored) == TURNED

        chapter = open_widget(TrainItYourself, loss="mine, from chapter 9")
        chapter.press("Play")
        chapter.wait_for("10 updates")


# --- what a running widget looks like --------------------------------------------------------


@pytest.mark.parametrize("cls", [ThreeClicks, TrainItYourself, WriteTheLoss])
def test_after_training_it_is_accessible_and_fits_a_phone(open_widget, cls):
    opened = open_widget(cls)
    if cls is ThreeClicks:
        pick_the_first(opened)
    if cls is WriteTheLoss:
        opened.page.get_by_role("textbox").fill(RIGHT)
    opened.press("Play" if cls is TrainItYourself else "Train")
    opened.page.wait_for_function(
        "[...document.querySelectorAll('.dpo-answers td')].every(td => td.textContent != '–')"
    )
    for theme in ("light", "dark"):
        opened.page.evaluate("t => { document.documentElement.dataset.theme = t; }", theme)
        results = Axe().run(opened.page, options={"rules": OF_WHOLE_PAGES})
        assert results.violations_count == 0, results.generate_report()
    opened.page.set_viewport_size({"width": PHONE, "height": 800})
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= PHONE
