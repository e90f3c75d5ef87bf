"""What the chapters say of the reader's clicks: the page's numbers are dpo_lib's."""

import json
import math

import pytest
import torch

from dpo_lib import dpo_reward, fit_bradley_terry, preference_nll
from dpo_lib.data import PreferenceDataset, PreferenceRecord
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.models.checkpoints import load_sft
from dpo_lib.widgets import YourClicks, join
from dpo_lib.widgets.clicks import annotator_rows, pairs, rows_of
from dpo_lib.widgets.spec import fmt
from dpo_lib.widgets.your_clicks import ACTIONS
from dpo_lib.world import true_reward, world_tokenizer
from tests.widgets.kinds import kind_of
from tests.widgets.looks import assert_accessible, assert_fits

KINDS = ["right", "wrong", "no answer", "rude", "malformed"]
SIDES = ("chosen", "rejected")
STRANGE = {"prompt": "List two zebras.", "chosen": "red and blue.", "rejected": "I do not know."}
SHORT = {  # right beats no answer beats wrong beats right: finite scores
    "first": ["first", "second", "first"] * 8,
    "clean": ["first"] * 24,
}
NUMBERS = """kinds => {
  return dpoBook.modules.module_widgets_your_clicks.kindScores(kinds);
}"""


def rows(choices):
    judged = [{"choice": "skip", "seconds": 1.0}]
    judged += [{"choice": choice, "seconds": 1.0} for choice in choices]
    return rows_of(pairs(), judged)


def kinds_of(clicked):
    return [[kind_of(row["prompt"], row[side]) for side in SIDES] for row in clicked]


def library_fit(kinds):
    """Names and scores; with half a click more each way between two kinds if there must be."""
    met = [pair for pair in kinds if pair[0] != pair[1]]
    names = [kind for kind in KINDS if any(kind in pair for pair in met)]
    index = torch.tensor([[names.index(kind) for kind in pair] for pair in met])
    try:
        return names, fit_bradley_terry(*index.T, n_items=len(names)).tolist(), True
    except ValueError:
        # Twice the clicks and one each way: as likely as half a click each way, squared.
        every = torch.tensor(
            [[i, j] for i in range(len(names)) for j in range(len(names)) if i != j]
        )
        more = torch.cat([index, index, every])
        return names, fit_bradley_terry(*more.T, n_items=len(names)).tolist(), False


def log_probs(model, clicked):
    records = [PreferenceRecord(*(row[k] for k in ("prompt", *SIDES))) for row in clicked]
    with torch.no_grad():
        both = get_pair_log_probs(model, PreferenceDataset(records, world_tokenizer()).batch())
    return torch.stack([*both], dim=1).double()  # (B, 2)


def compute(opened, mode, rows=()):
    if rows:
        opened.keep(rows)
    opened.press(ACTIONS[mode])
    opened.page.wait_for_function(
        "(said => /\\d (of your )?clicks/.test(said) && !said.includes('Press'))"
        "(document.querySelector('.dpo-status').textContent)",
        timeout=60_000,
    )
    return opened.status()


def assert_ends(opened, name, clicked, numbers):
    """The table holds the clicks that these numbers (B, 2) are most against and most for."""
    order = (numbers[:, 0] - numbers[:, 1]).argsort().tolist()
    lines = opened.page.locator("table tbody tr").all()
    for line, i in zip(lines, [*order[:3], *order[-3:]], strict=True):
        assert line.locator("th").text_content() == clicked[i]["prompt"]
        assert line.locator("td").all_text_contents() == [
            f"{clicked[i][side]}{name} {fmt(number, 2)}"
            for side, number in zip(SIDES, numbers[i].tolist(), strict=True)
        ]
    named = {"reward": "the reward"}.get(name, name)
    assert opened.page.locator("caption").text_content() == (
        f"The 3 clicks that {named} is most against, and the 3 it is most for"
    )


@pytest.fixture
def script(browser):
    page = browser.new_page()
    page.add_script_tag(content=join.static_script(["your_clicks"]))
    yield lambda expression, value: page.evaluate(expression, value)
    page.close()


class TestNumbers:
    @pytest.mark.parametrize(
        "kinds",
        [
            [
                ["right", "wrong"],
                ["wrong", "no answer"],
                ["no answer", "right"],
                ["right", "wrong"],
            ],
            [["right", "wrong"]] * 9 + [["wrong", "right"]],
            [["right", "wrong"]] * 5,
            [["right", "wrong"], ["rude", "malformed"]],
            [["right", "right"], ["no answer", "rude"], ["rude", "no answer"]],
            kinds_of(annotator_rows()),
        ],
    )
    def test_scores_of_kinds_are_the_library_s(self, script, kinds):
        got = script(NUMBERS, kinds)
        names, scores, finite = library_fit(kinds)
        assert got["names"] == names
        assert got["scores"] == pytest.approx(scores, abs=1e-8)
        assert (got["gap"] is None) == finite
        if not finite:
            start, end = got["gap"]
            beaten = {start}
            for _ in names:
                beaten |= {lost for won, lost in kinds if won in beaten}
            assert end not in beaten
            assert end in names
        assert sum(map(sum, got["wins"])) == sum(a != b for a, b in kinds)

    def test_clicks_on_one_kind_only_have_no_scores(self, script):
        assert script(NUMBERS, [["right", "right"]])["names"] == []

    def test_a_tie_counts_half_and_the_loss_is_the_library_s(self, script):
        margins = [-3.0, 0.0, 0.4, 800.0]
        of = "m => dpoBook.modules.module_widgets_your_clicks.lossOf(m)"
        got = script(of, margins)
        assert got["ranked"] == 2.5
        expected = preference_nll(torch.tensor(margins, dtype=torch.float64), 0.0).mean()
        assert got["loss"] == pytest.approx(expected.item(), rel=1e-12)


class TestForms:
    def test_no_other_form_exists(self):
        with pytest.raises(ValueError, match="'odds'"):
            YourClicks.of("odds")

    @pytest.mark.parametrize("mode", ACTIONS)
    def test_who_has_no_clicks_gets_a_stored_annotator_s_and_is_told(self, open_widget, mode):
        opened = open_widget(YourClicks, YourClicks.spec_of(mode))
        assert opened.status().startswith("You have no clicks yet; a stored annotator’s stand in.")
        assert opened.page.get_by_text("You have no clicks yet; these are a stored").is_visible()
        said = compute(opened, mode)
        assert "tored annotator’s 24 clicks" in said
        assert len(said) <= 150
        assert_accessible(opened.page)
        assert_fits(opened.page)
        assert opened.status() == said

    def test_scores(self, open_widget):
        opened = open_widget(YourClicks)
        clicked = rows(SHORT["first"])
        compute(opened, "scores", clicked)
        kinds = kinds_of(clicked)
        names, scores, finite = library_fit(kinds)
        for line in opened.page.locator("table tbody tr").all():
            kind = line.locator("th").text_content()
            cells = line.locator("td").all_text_contents()
            if kind not in names:
                assert cells == ["–", "–", "–"]
                continue
            won = sum(a == kind != b for a, b in kinds)
            lost = sum(b == kind != a for a, b in kinds)
            assert cells == [str(won), str(lost), fmt(scores[names.index(kind)], 2)]
        assert opened.page.get_by_text("half a click added").count() == (not finite)
        same = sum(a == b for a, b in kinds)
        assert opened.page.get_by_text(f"Of these clicks, {same} compare two").is_visible()
        result = {"n": len(clicked), "yours": True, "names": names, "scores": scores}
        assert opened.status() == YourClicks.describe(YourClicks().values | {"result": result})

    def test_loss(self, open_widget):
        opened = open_widget(YourClicks, YourClicks.spec_of("loss"))
        clicked = rows(SHORT["clean"])
        compute(opened, "loss", clicked)
        kinds = kinds_of(clicked)
        score = dict(zip(*library_fit(kinds)[:2], strict=True))
        truth = [[true_reward(row["prompt"], row[side]) for side in SIDES] for row in clicked]
        expected = []
        for both in (
            [[0.0, 0.0] for _ in clicked],
            [[score.get(kind, 0.0) if a != b else 0.0 for kind in (a, b)] for a, b in kinds],
            truth,
        ):
            chosen, rejected = torch.tensor(both, dtype=torch.float64).T
            ranked = ((chosen > rejected).double() + 0.5 * (chosen == rejected)).sum().item()
            loss = preference_nll(chosen, rejected).mean().item()
            expected.append([fmt(loss, 3), fmt(ranked, 1) if ranked % 1 else str(int(ranked))])
        lines = opened.page.locator("table tbody tr").all()
        assert [line.locator("td").all_text_contents() for line in lines] == expected
        assert expected[0][0] == fmt(math.log(2), 3)
        assert opened.status() == (
            f"{len(clicked)} of your clicks: mean loss {expected[1][0]} with scores fitted to "
            f"them, {expected[2][0]} with the true reward."
        )

    def test_log_probs(self, open_widget):
        opened = open_widget(YourClicks, YourClicks.spec_of("log_probs"))
        clicked = rows(SHORT["first"])
        said = compute(opened, "log_probs", clicked)
        logps = log_probs(load_sft(), clicked)
        margins = logps[:, 0] - logps[:, 1]
        assert said == YourClicks.describe(
            YourClicks.spec_of("log_probs").state
            | {"result": {"n": 24, "yours": True, "agree": int((margins > 0).sum())}}
        )
        assert_ends(opened, "log π", clicked, logps)
        opened.page.evaluate("dispatchEvent(new Event('dpo-policy'))")  # one that is not asked
        assert_ends(opened, "log π", clicked, logps)
        assert opened.status() == said

    def test_rewards_of_a_policy_that_is_trained_here(self, open_widget):
        opened = open_widget(YourClicks, YourClicks.spec_of("rewards"))
        clicked = rows(SHORT["first"])
        said = compute(opened, "rewards", clicked)
        assert said.startswith("DPO, β = 1, 60 updates: mean reward ")
        rewards = dpo_reward(
            log_probs(opened.policy(), clicked), log_probs(load_sft(), clicked), 1.0
        )
        chosen, rejected = rewards.mean(dim=0).tolist()
        agree = int((rewards[:, 0] > rewards[:, 1]).sum())
        assert f"reward {fmt(chosen, 2)} chosen, {fmt(rejected, 2)} rejected; {agree} of 24" in said
        assert agree > 18
        assert_ends(opened, "reward", clicked, rewards)
        opened.page.evaluate("dispatchEvent(new Event('dpo-policy'))")  # another is trained
        opened.wait_for("24 of your clicks are here. Press Compute rewards.")
        assert set(opened.page.locator("table td").all_text_contents()) == {"–"}

    def test_rows_that_the_model_cannot_read_are_told(self, open_widget):
        opened = open_widget(YourClicks, YourClicks.spec_of("log_probs"))
        said = compute(opened, "log_probs", [*rows(["first"]), STRANGE])
        assert "of 1 of your clicks" in said
        assert opened.page.get_by_text("1 of your rows are not in the model’s words").is_visible()


class TestRows:
    def test_out_to_a_file_away_and_in_again(self, open_widget, tmp_path):
        opened = open_widget(YourClicks)
        clicked = rows(["first", "second", "first"])
        opened.keep(clicked)
        opened.wait_for("3 of your clicks are here. Press Fit scores.")
        with opened.page.expect_download() as download:
            opened.press("Download JSONL")
        path = tmp_path / "preferences.jsonl"
        download.value.save_as(path)
        assert [json.loads(line) for line in path.read_text().splitlines()] == clicked

        opened.press("Erase")
        opened.press("Erase all 3?")
        opened.wait_for("Your rows are erased from this browser.")
        assert opened.page.evaluate("localStorage.length") == 0
        assert (
            opened.page.get_by_role("button", name="Erase").get_attribute("aria-disabled") == "true"
        )
        opened.page.locator("input[type=file]").set_input_files(path)
        opened.wait_for("3 rows read from preferences.jsonl")
        path.write_text("{}\n")
        opened.page.locator("input[type=file]").set_input_files(path)
        opened.wait_for("Line 1: prompt must be a text")
        path.write_text(json.dumps(clicked[0]))
        opened.page.locator("input[type=file]").set_input_files(path)
        opened.wait_for("1 row read from preferences.jsonl")
        opened.press("Reset")
        opened.wait_for("3 of your clicks are here.")

    def test_one_press_of_erase_is_not_enough(self, open_widget):
        opened = open_widget(YourClicks)
        opened.keep(rows(["first"]))
        button = opened.page.get_by_role("button", name="Erase")
        button.focus()
        opened.page.keyboard.press("Enter")
        assert button.text_content() == "Erase all 1?"
        opened.page.keyboard.press("Tab")
        assert button.text_content() == "Erase"
        assert opened.page.evaluate("localStorage.length") == 1

    def test_what_was_computed_goes_when_the_rows_change(self, open_widget):
        opened = open_widget(YourClicks)
        clicked = rows(["first", "second"])
        compute(opened, "scores", clicked)
        ((won, lost),) = [kinds for kinds in kinds_of(clicked) if kinds[0] != kinds[1]]
        gap = f"No chain of clicks leads from “{lost}” to “{won}”, so no finite scores"
        assert gap in opened.page.locator(".dpo-your-about").text_content()
        other = open_widget(YourClicks)
        other.wait_for("2 of your clicks are here.")  # what it writes from now on is heard of
        other.put(rows(["first"]))
        opened.wait_for("1 of your clicks are here.")
        assert set(opened.page.locator("table td").all_text_contents()) == {"–"}
