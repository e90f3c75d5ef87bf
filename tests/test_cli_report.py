"""The report: one file, both themes, text for every curve, and no word taken for markup."""

import math
import re

import pytest

from dpo_lib.cli.curves import Line, draw
from dpo_lib.cli.report import advice, write_report
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
    results = {"seconds": 3.0, "held_out": final, "tokens": {"chosen": 4.0, "rejected": 5.0}}
    results |= {"kl": 0.5, "kl_error": 0.1, "kl_replies": 16}
    results |= {"tokens_before": 9.0, "tokens_after": 3.0}
    settings = {"model": "tiny", "lora": None, "steps": 6, "batch_size": 2, "loss": "dpo"}
    settings |= {"beta": 0.1, "lr": 1e-4, "seed": 0}
    run = {"settings": settings, "data": f"{NASTY}.jsonl", "pairs": 9, "held_out": 2}
    run |= {"skipped": {"empty": 1}, "results": results, "advice": advice(history, results)}
    path = tmp_path / "report.html"
    write_report(path, run, history, [{"prompt": NASTY, "before": reply, "after": reply}])
    return path


def test_the_report_needs_nothing_else(report):
    text = report.read_text()
    assert not re.search(r"https?:|src=|url\(|@import|<link|<script", text)
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more" in text
    assert "prefers-color-scheme: dark" in text
    assert "1 empty skipped" in text


def test_every_curve_is_told_in_words(report):
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', report.read_text())
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


def test_advice_names_what_looks_wrong(history):
    final = {"accuracy": 0.4, "margin": 3.0, "chosen_logp": -2.0}
    final |= {"accuracy_chosen_longer": 0.9, "accuracy_chosen_shorter": 0.2}
    results = {"held_out": final, "tokens_before": 30.0, "tokens_after": 4.0}
    found = advice(history, results)
    for words in ("margin is 3.0", "less likely (-2.0", "a coin's", "may be the length", "shrunk"):
        assert any(words in line for line in found)
    good = {"accuracy": 0.9, "margin": 1.2, "chosen_logp": 0.5}
    assert advice(history, {"held_out": good, "tokens_before": 9.0, "tokens_after": 8.0}) == []
    assert advice(history, {"held_out": None}) == []


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [-3e5, 2e5], [math.nan, 1.0], [1e-7, 2e-7], [-1.0, -1.0]]
)
def test_any_values_can_be_drawn(values):
    text = draw("A", "nats", [Line("a", "policy", list(range(len(values))), values)])
    points = re.search(r'points="([^"]*)"', text)[1].split()
    assert len(points) == sum(math.isfinite(v) for v in values)
    for point in points:
        x, y = map(float, point.split(","))
        assert 40 <= x <= 420
        assert 30 <= y <= 205
