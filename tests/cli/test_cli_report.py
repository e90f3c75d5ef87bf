"""The report: one file, both themes, text for every curve, and no word taken for markup."""

import json
import math
import re

import pytest

from dpo_lib import figures
from dpo_lib.cli.held_out import make_loss
from dpo_lib.cli.report import Curve, Line, advice, draw, write_report
from dpo_lib.experiments.store import RESULTS
from dpo_lib.losses import LOSSES
from dpo_lib.training import DPOConfig, TrainingHistory

NASTY = '<script>alert("x")</script> & more'


@pytest.fixture
def history():
    history = TrainingHistory(DPOConfig())
    names = ("loss", "reward_accuracy", "margin", "chosen_logp", "rejected_logp")
    history.steps = [{"step": i, **dict.fromkeys(names, 0.1 * i)} for i in range(6)]
    held = ("loss", "accuracy", "margin", "chosen_logp", "rejected_logp")
    history.evaluations = [
        {"step": i, **{f"held_out_{name}": 0.2 for name in held}} for i in (0, 3, 6)
    ]
    return history


@pytest.fixture
def report(tmp_path, history):
    reply = {"text": NASTY, "tokens": 3, "finished": False}
    final = {"loss": 0.5, "accuracy": 0.75, "margin": 2.5, "chosen_logp": -1.0}
    final["rejected_logp"] = -3.0
    results = {"seconds": 3.0, "held_out": final, "tokens": {"chosen": 4.0, "rejected": 5.0}}
    results |= {"kl": 0.5, "kl_error": 0.1, "kl_replies": 16}
    results |= {"tokens_before": 9.0, "tokens_after": 3.0}
    results |= {"finished_before": 0.5, "finished_after": 1.0}
    settings = {"model": "tiny", "lora": None, "steps": 6, "batch_size": 2, "loss": "dpo"}
    settings |= {"beta": 0.1, "lr": 1e-4, "seed": 0}
    run = {"settings": settings, "data": f"{NASTY}.jsonl", "pairs": 9, "held_out": 2}
    run |= {"skipped": {"empty": 1}, "results": results, "advice": advice(history, results, "dpo")}
    path = tmp_path / "report.html"
    write_report(path, run, history, [{"prompt": NASTY, "before": reply, "after": reply}])
    return path


def test_the_report_needs_nothing_else(report):
    text = report.read_text()
    assert not re.search(r"https?:|src=|url\((?!#)|@import|<link|<script", text)
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more" in text
    assert "prefers-color-scheme: dark" in text
    assert "1 empty skipped" in text
    assert re.search(r"Answers that end, before</th><td>50%<.*\n.*, after</th><td>100%<", text)


def test_the_verdict_and_the_answers_come_first(report):
    text = report.read_text()
    parts = ["in 75%, by 2.50", "<h2>Answers before", "<h2>While it trained", "<h2>Numbers"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert "the rejected one less likely (-3.0 nats)" in text


def test_curves_have_the_colors_of_the_page(report):
    drawings = "".join(re.findall(r"<svg .*?</svg>", report.read_text(), re.DOTALL))
    assert {*re.findall(r"var\(--(\w+)\)", drawings)} == {
        *("paper", "ink", "grid", "muted", "policy", "chosen", "rejected")
    }
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)


def test_every_curve_is_told_in_words(report):
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', report.read_text())
    assert len(labels) == 4
    assert labels[0] == (
        "Loss (nats). batch: from 0.00 at update 0 to 0.50 at update 5, between 0.00 and 0.50. "
        "held out: from 0.20 at update 0 to 0.20 at update 6, between 0.20 and 0.20."
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_in_a_browser(report, browser, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(color_scheme=scheme, viewport={"width": 500, "height": 900})
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert (problems, requests) == ([], [report.as_uri()])
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 500
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 25, 31)"
    )
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_markup_of_the_data_never_runs(tmp_path, history, report, browser):
    """In a prompt, an answer, a file's name, the model's name and a kind of bad row."""
    nasty = (
        "'\"><img src=x onerror=document.title='owned'><script>document.title='owned'</script>$how"
    )
    reply = {"text": nasty, "tokens": 1, "finished": True}
    results = {"seconds": 1.0, "held_out": None, "tokens": {"chosen": 1.0, "rejected": 1.0}}
    settings = {"model": nasty, "lora": None, "steps": 6, "batch_size": 2, "loss": nasty}
    settings |= {"beta": 0.1, "lr": 1e-4, "seed": 0}
    run = {"settings": settings, "data": [nasty], "pairs": 9, "held_out": 0, "advice": [nasty]}
    run |= {"skipped": {nasty: 1}, "results": results}
    row = {"prompt": nasty, "before": reply, "after": reply}
    write_report(tmp_path / "nasty.html", run, history, [row])
    page = browser.new_page()
    page.goto((tmp_path / "nasty.html").as_uri())
    assert page.title() != "owned"
    assert page.locator("img, script").count() == 0
    assert page.locator(".answers td").first.inner_text().startswith(nasty)
    page.close()


GOOD = {"accuracy": 0.9, "margin": 1.2, "chosen_logp": 0.5}


def test_advice_names_what_looks_wrong(history):
    final = {"accuracy": 0.4, "margin": 3.0, "chosen_logp": -2.0}
    final |= {"accuracy_chosen_longer": 0.9, "accuracy_chosen_shorter": 0.2}
    results = {"held_out": final, "tokens_before": 30.0, "tokens_after": 4.0}
    results |= {"finished_before": 0.75, "finished_after": 0.25}
    found = advice(history, results, "dpo")
    for words in (
        *("margin is 3.0", "less likely (-2.0", "a coin's", "may be the length"),
        *("shrunk", "25% of the answers end, 75% did before"),
    ):
        assert sum(words in line for line in found) == 1
    assert len(found) == 6
    lengths = {"tokens_before": 9.0, "tokens_after": 8.0}
    few_ended = {"finished_before": 0.3, "finished_after": 0.1}  # cut before and after
    assert advice(history, {"held_out": GOOD, **lengths, **few_ended}, "dpo") == []
    assert advice(history, {"held_out": None}, "dpo") == []


@pytest.mark.parametrize("loss", LOSSES)
def test_a_margin_is_warned_of_where_it_has_the_scale_of_dpo(history, loss):
    found = advice(history, {"held_out": {**GOOD, "margin": 2.5}}, loss)
    assert bool(found) == (loss in ("dpo", "cdpo", "robust_dpo", "r_dpo"))
    assert all(f"margin is 2.5; with {loss}," in line for line in found)
    assert advice(history, {"held_out": {**GOOD, "margin": 1.9}}, loss) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_advised_against_a_fall_of_the_chosen_is_not_the_loss_itself(history, loss):
    (line,) = advice(history, {"held_out": {**GOOD, "chosen_logp": -0.6}}, loss)
    assert "less likely (-0.6 nats)" in line
    assert f"--loss {loss}" not in line
    if option := re.search(r"--option (\w+)=", line):
        make_loss(loss, {option[1]: 1.0})


def test_without_held_out_pairs_the_last_batch_is_judged(history):
    history.steps[-1] |= {"margin": 3.0, "chosen_logp": -1.0}
    chosen, margin = advice(history, {"held_out": None}, "dpo")
    assert "less likely (-1.0" in chosen
    assert margin.startswith("the margin is 3.0")


def of_stored_run(name, seed, last):
    """History and results of a run of appendix F, up to update ``last``, as ``train`` has them."""
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    rows = [r for r in json.loads(text)["rows"] if r["seed"] == seed and r["step"] <= last]
    history = TrainingHistory(DPOConfig())
    history.evaluations = [
        {"step": r["step"], "held_out_chosen_logp": r["chosen_logp"]} for r in rows
    ]
    results = {"held_out": rows[-1]}
    for when, row in (("before", rows[0]), ("after", rows[-1])):
        results |= {f"tokens_{when}": row["length"], f"finished_{when}": row["finished"]}
    return history, results


@pytest.mark.parametrize("seed", range(3))
def test_advice_tells_the_real_runs_that_broke_from_those_that_did_not(seed):
    broken = advice(*of_stored_run("real_model", seed, 24), "dpo")
    assert re.search(r"less likely|stood at .* after (8|12) updates", broken[0])
    assert "of the answers end" in broken[1]
    assert "margin is" in broken[2]
    assert len(broken) == 3
    assert advice(*of_stored_run("real_model", seed, 8), "dpo") == []
    assert advice(*of_stored_run("real_model_rpo", seed, 24), "rpo") == []


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [-3e5, 2e5], [math.nan, 1.0], [1e-7, 2e-7], [-1.0, -1.0]]
)
def test_any_values_can_be_drawn(values):
    text = draw(Curve("A", [Line("a", figures.POLICY, "-", range(len(values)), values)]))
    assert text.startswith("<figure><svg ")
    assert "nan" not in text
    said = re.search(r'aria-label="([^"]+)"', text)[1]
    assert f"to {values[-1]:.2f} at update {len(values) - 1}" in said
