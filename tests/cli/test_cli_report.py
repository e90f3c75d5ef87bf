"""The report: one file, both themes, text for every curve, and no word taken for markup."""

import html
import json
import math
import re

import pytest

from dpo_lib import figures
from dpo_lib.cli.held_out import make_loss
from dpo_lib.cli.report import (
    Curve,
    Line,
    _answers,
    _numbers,
    advice,
    curves,
    draw,
    verdict,
    write_report,
)
from dpo_lib.experiments.store import RESULTS
from dpo_lib.losses import LOSSES
from dpo_lib.training import DPOConfig, TrainingHistory
from dpo_lib.widgets import join

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


def test_a_color_means_what_it_means_in_the_book(report):
    def themes(css):
        parts = re.split(r"scheme: dark\)|theme=\"dark\"", css)
        blocks = [re.findall(r"--(?:dpo-)?(\w+): #(\w+)", part) for part in parts]
        return [{name: (code * 2)[:6] for name, code in block} for block in blocks]

    def distance(one, other):
        return sum(abs(int(one[i : i + 2], 16) - int(other[i : i + 2], 16)) for i in (0, 2, 4))

    ours = themes(report.read_text())
    for own, book in zip(ours, themes(join.theme_css().partition("*/")[2]), strict=True):
        for name in (shown := own.keys() & book.keys()):
            assert min(shown, key=lambda other: distance(own[name], book[other])) == name


def test_every_curve_is_told_in_words(report):
    labels = re.findall(r'<svg role="img" aria-label="([^"]+)"', report.read_text())
    assert len(labels) == 4
    assert labels[0] == (
        "Loss (nats). batch: from 0.00 at update 0 to 0.50 at update 5, between 0.00 and 0.50. "
        "held out: from 0.20 at update 0 to 0.20 at update 6, between 0.20 and 0.20."
    )


# --- every word ----------------------------------------------------------------------------------

RUN = {
    "settings": {
        **{"model": "tiny", "lora": 8, "steps": 6, "batch_size": 2, "loss": "dpo"},
        **{"beta": 0.1, "lr": 1e-4, "seed": 3},
    },
    "data": ["home/a.jsonl", "b.csv"], "pairs": 90, "held_out": 12,
    "skipped": {"empty": 1, "the same twice": 2},
    "advice": ["one thing", "another"],
}  # fmt: skip
ANSWERS = {"kl": 0.512, "kl_error": 0.1, "kl_replies": 16, "seconds": 71.6}
ANSWERS |= {"tokens_before": 9.0, "tokens_after": 3.14, "tokens": {"chosen": 4.0, "rejected": 5.0}}
ANSWERS |= {"finished_before": 0.5, "finished_after": 1.0}
SAMPLE = {
    "prompt": "Why?",
    "before": {"text": "So.", "tokens": 3, "finished": False},
    "after": {"text": "Thus.", "tokens": 2, "finished": True},
}


def words_of(path, run, history, samples):
    """What a report says, in its order, without its drawings."""
    write_report(path, run, history, samples)
    page = path.read_text(encoding="utf-8")
    page = re.sub(r"<(svg|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return [html.unescape(part) for part in re.split(r"<[^>]+>|\n", page) if part.strip()]


def test_a_report_on_pairs_says_this(history, tmp_path):
    final = {"loss": 0.5, "accuracy": 0.75, "margin": 2.5, "chosen_logp": 0.0}
    final |= {"rejected_logp": -3.0, "pairs_chosen_longer": 5}
    run = RUN | {"results": {"held_out": final, **ANSWERS}}
    title = "tiny, trained on a.jsonl, b.csv"
    assert words_of(tmp_path / "report.html", run, history, [SAMPLE]) == [
        *(title, title),
        "On held-out pairs the chosen response has the higher reward in 75%, by 2.50 on the mean; "
        "it has become more likely (+0.0 nats), the rejected one less likely (-3.0 nats). Answers "
        "had 9.0 tokens and have 3.1; 100% of them end, 50% did before.",
        *("One thing.", "Another.", "Answers before and after"),
        "The likeliest token at every step; the prompts were not trained on",
        *("Prompt", "Before", "After", "Why?", "So.", "3 tokens, cut", "Thus.", "2 tokens"),
        *("While it trained", "Loss (nats)", "Reward accuracy (share)"),
        *("Margin of the rewards (nats)", "Log-probability since the start (nats)", "Numbers"),
        "90 pairs, 12 of them held out (1 empty, 2 the same twice skipped). 6 updates of 2 pairs, "
        "LoRA of rank 8, loss dpo, beta 0.1, learning rate 0.0001, seed 3.",
        "After the last update",
        *("Held out: loss (nats)", "0.500", "Held out: reward accuracy", "0.750"),
        *("Held out: margin (nats)", "2.500"),
        *("Held out: log-probability of chosen since the start (nats)", "0.000"),
        *("Held out: log-probability of rejected since the start (nats)", "-3.000"),
        *("Held out: pairs whose chosen response is longer", "5"),
        *("KL from the start, 16 sampled replies (nats)", "0.51 ± 0.10"),
        *("Tokens of an answer before", "9.0", "Tokens of an answer after", "3.1"),
        *("Answers that end, before", "50%", "Answers that end, after", "100%"),
        *("Tokens of the chosen responses trained on", "4.0"),
        *("Tokens of the rejected responses trained on", "5.0", "Seconds", "72"),
    ]


def test_a_report_on_thumbs_says_this(tmp_path):
    history = TrainingHistory(DPOConfig())
    history.steps = [{"step": 1, "loss": 1.0, "level": 0.0, "desirable_logp": -1.0}]
    final = {"thumbs_up": 7, "thumbs_down": 5, "auc": 0.8125, "margin": 0.75, "level": 0.25}
    final |= {"desirable_logp": 0.04, "undesirable_logp": -1.5}
    settings = RUN["settings"] | {"lora": None, "loss": "kto"}
    run = RUN | {"settings": settings, "unit": "thumbs", "skipped": {}, "advice": []}
    run |= {"results": {"held_out": final, "tokens": {}, "seconds": 9.0}}
    words = words_of(tmp_path / "report.html", run, history, None)
    assert words[2:] == [
        "Of held-out responses, one with a thumb up has a higher reward than one with a thumb down "
        "in 81% of the cases, by 0.75 on the mean. Responses with a thumb up have become more "
        "likely (+0.0 nats). Responses with a thumb down have become less likely (-1.5 nats).",
        *("While it trained", "Loss", "Thumbs up above thumbs down (AUC)"),
        *("Log-probability since the start (nats)", "Level, from mismatched responses (nats)"),
        "Numbers",
        "90 thumbs, 12 of them held out. 6 updates of 2 thumbs, all weights, loss kto, beta 0.1, "
        "learning rate 0.0001, seed 3.",
        "After the last update",
        *("Held out: thumbs up", "7", "Held out: thumbs down", "5"),
        *("Held out: thumbs up above thumbs down (AUC)", "0.812", "Held out: margin (nats)"),
        *("0.750", "Held out: level, from mismatched responses (nats)", "0.250"),
        *("Held out: log-probability of thumbs up since the start (nats)", "0.040"),
        *("Held out: log-probability of thumbs down since the start (nats)", "-1.500"),
        *("Seconds", "9"),
    ]


def test_a_verdict_says_only_what_is_known():
    nothing = "Nothing was held out: nothing here says what holds for other prompts."
    assert verdict({"held_out": None}) == nothing
    assert verdict({"held_out": None, "tokens_after": None}) == nothing
    one_kind = {"thumbs_up": 3, "thumbs_down": 0, "desirable_logp": 0.5}
    said = "Responses with a thumb up have become more likely (+0.5 nats)."
    assert verdict({"held_out": one_kind}) == said
    held = {"accuracy_chosen_longer": 0.25, "accuracy_chosen_shorter": 1.0}
    held |= {"pairs_chosen_shorter": 1}
    assert _numbers({"results": {"held_out": held, "tokens": {}, "seconds": 1.0}})[:3] == [
        ("Held out: reward accuracy where chosen is longer", "0.250"),
        ("Held out: reward accuracy where chosen is shorter", "1.000"),
        ("Held out: pairs whose chosen response is shorter", 1),
    ]
    run = RUN | {"held_out": 0}
    assert "prompts of the training set</caption>" in _answers([SAMPLE], run)


GOOD = {"accuracy": 0.9, "margin": 1.2, "chosen_logp": 0.5}
FELL = "chosen responses have become less likely ({} nats); {} works against it"
MARGIN = (
    "the {} is {}; with dpo, beyond 1 to 2 answers often get worse: compare with fewer steps or a "
    "lower learning rate"
)
READ = "read them before trusting the accuracy"


@pytest.mark.parametrize(
    ("final", "loss", "said"),
    [
        ({"margin": 2.06}, "dpo", MARGIN.format("held-out margin", 2.1)),
        ({"margin": 2.0}, "dpo", None),
        ({"accuracy": 0.5}, "dpo", "held-out accuracy is not above a coin's: nothing general was "
         "learned"),
        ({"accuracy": 0.51}, "dpo", None),
        ({"accuracy_chosen_longer": 0.3, "accuracy_chosen_shorter": 0.0}, "dpo", None),
        ({"accuracy_chosen_longer": 0.2, "accuracy_chosen_shorter": 0.9}, "dpo",
         "accuracy is 0.20 where the chosen response is longer, 0.90 where it is shorter: part of "
         "what was learned may be the length"),
        ({"accuracy_chosen_longer": 0.2}, "dpo", None),
        ({"chosen_logp": -0.5}, "dpo", None),
        ({"chosen_logp": 0.1}, "dpo", None),
        ({"chosen_logp": -0.6}, "dpo", FELL.format(-0.6, "a term of fine-tuning (--loss rpo)")),
        ({"chosen_logp": -0.6}, "rpo", FELL.format(-0.6, "a larger alpha (--option alpha=...)")),
        ({"chosen_logp": -0.6}, "dpop",
         FELL.format(-0.6, "a larger penalty (--option penalty=...)")),
        ({"chosen_logp": -0.6}, "orpo",
         FELL.format(-0.6, "a lower --beta, which leaves likelihood more weight,")),
    ],
)  # fmt: skip
def test_advice_on_pairs_in_full(history, final, loss, said):
    found = advice(history, {"held_out": GOOD | final}, loss)
    assert found == ([said] if said else [])


@pytest.mark.parametrize(
    ("way", "step"),
    [
        ([0.0, 1.0, 0.6, 0.4], 6),
        ([0.0, 1.0, 0.4, 0.9], None),  # it is back
        ([0.0, 1.0, 0.6, 0.5], None),  # half of it stands
        ([0.0, 0.9, 0.2, 0.1], None),  # it never stood high
        ([0.0, 1.8, 3.0, 1.2], 12),
    ],
)
def test_advice_on_a_fall_from_the_best(way, step):
    history = TrainingHistory(DPOConfig())
    history.evaluations = [
        {"step": 6 * i, "held_out_chosen_logp": value} for i, value in enumerate(way)
    ]
    said = (
        f"chosen responses stood at {max(way):+.1f} nats after {step} updates and have fallen to "
        f"{way[-1]:+.1f}: compare with {step} updates"
    )
    assert advice(history, {"held_out": GOOD}, "dpo") == ([said] if step else [])
    history.steps = [GOOD]
    assert advice(history, {"held_out": None}, "dpo") == []  # batches are not the same pairs


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"tokens_before": 9.0, "tokens_after": 4.5}, None),
        ({"tokens_before": 9.0, "tokens_after": 4.4},
         f"answers have shrunk from 9.0 to 4.4 tokens: {READ}"),
        ({"finished_before": 0.49, "finished_after": 0.0}, None),
        ({"finished_before": 0.5, "finished_after": 0.25}, None),
        ({"finished_before": 0.5, "finished_after": 0.24},
         f"24% of the answers end, 50% did before: {READ}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("thumbs", [False, True])
def test_advice_on_answers_in_full(history, results, said, thumbs):
    if thumbs:
        history.steps[0]["level"] = 0.0
    found = advice(history, {"held_out": GOOD, **results}, "dpo")
    assert found == ([said] if said else [])


DESIRABLE = (
    "responses with a thumb up have become less likely ({} nats); a larger desirable_weight "
    "(--option desirable_weight=...) works against it"
)
COIN = "held-out AUC is not above a coin's: nothing general was learned"


@pytest.mark.parametrize(
    ("final", "last", "said"),
    [
        ({"desirable_logp": 0.4, "auc": 0.51}, {}, []),
        ({"desirable_logp": -0.5}, {"desirable_logp": -9.0}, []),  # the held-out ones decide
        ({"desirable_logp": -0.6, "auc": 0.5}, {}, [DESIRABLE.format(-0.6), COIN]),
        ({"undesirable_logp": -9.0}, {}, []),  # no thumb up was held out
        (None, {"desirable_logp": -1.26}, [DESIRABLE.format(-1.3)]),
        (None, {"auc": 0.1}, []),
    ],
)
def test_advice_on_thumbs_in_full(final, last, said):
    history = TrainingHistory(DPOConfig())
    history.steps = [{"level": 0.0}, {"level": 0.0}, {"level": 0.0, **last}]
    assert advice(history, {"held_out": final}, "kto") == said


# --- which numbers stand where -------------------------------------------------------------------

PAIR_NAMES = {
    "loss": "loss", "reward_accuracy": "accuracy", "margin": "margin",
    "chosen_logp": "chosen_logp", "rejected_logp": "rejected_logp",
}  # fmt: skip
THUMB_NAMES = {
    "loss": "loss", "reward_auc": "auc", "level": "level",
    "desirable_logp": "desirable_logp", "undesirable_logp": "undesirable_logp",
}  # fmt: skip
SHOWN = {  # title: columns of the batch, colors
    "Loss (nats)": (["loss"], ["POLICY"]),
    "Reward accuracy (share)": (["reward_accuracy"], ["POLICY"]),
    "Margin of the rewards (nats)": (["margin"], ["POLICY"]),
    "Log-probability since the start (nats)": (
        ["chosen_logp", "rejected_logp"],
        ["CHOSEN", "REJECTED"],
    ),
    "Loss": (["loss"], ["POLICY"]),
    "Thumbs up above thumbs down (AUC)": (["reward_auc"], ["POLICY"]),
    "Level, from mismatched responses (nats)": (["level"], ["POLICY"]),
}


@pytest.mark.parametrize("names", [PAIR_NAMES, THUMB_NAMES], ids=["pairs", "thumbs"])
def test_every_curve_has_its_own_column(names):
    history = TrainingHistory(DPOConfig())
    values = {name: 10.0 * (i + 1) for i, name in enumerate(names)}  # told apart by their values
    history.steps = [{"step": i, **{n: v + i for n, v in values.items()}} for i in range(3)]
    held = {f"held_out_{theirs}": values[ours] + 5 for ours, theirs in names.items()}
    history.evaluations = [
        {"step": step, **{name: value + step / 10 for name, value in held.items()}}
        for step in (0, 2, 3)
    ]
    found = curves(history)
    assert len(found) == 4
    for curve in found:
        columns, colors = SHOWN[curve.title]
        share = "share" in curve.title or "AUC" in curve.title
        assert curve.limits == ((-0.03, 1.03) if share else None)  # nothing else is cut off
        if names is THUMB_NAMES and "since the start" in curve.title:
            columns = ["desirable_logp", "undesirable_logp"]
        expected = []
        for column, color in zip(columns, colors, strict=True):
            first = values[column]
            color = getattr(figures, color)
            expected.append((color, [0, 1, 2], [first, first + 1, first + 2]))
            expected.append((color, [0, 2, 3], [first + 5, first + 5.2, first + 5.3]))
        assert [(line.color, line.x, line.y) for line in curve.lines] == expected
        words = [line.label.replace("held out", "").replace("batch", "") for line in curve.lines]
        if len(words) == 4:
            kinds = ("thumb up", "thumb down") if names is THUMB_NAMES else ("chosen", "rejected")
            assert words == [f"{kind}, " for kind in kinds for _ in range(2)]


def drawn_points(text, color):
    """Where the lines of a color go in an SVG, to the right and upwards."""
    for d, style in re.findall(r'<path d="([^"]+)"[^>]*style="([^"]+)"', text):
        if f"stroke: var(--{color})" in style and d.count("L") > 1:
            numbers = [float(x) for x in re.findall(r"-?[\d.]+", d)]
            yield [*zip(numbers[::2], (-y for y in numbers[1::2]), strict=True)]


@pytest.mark.parametrize("limits", [None, (-0.03, 1.03)])
def test_what_rises_is_drawn_rising_to_the_right(limits):
    line = Line("a", figures.POLICY, "-", [0, 1, 3], [0.1, 0.2, 0.9])
    found = drawn_points(draw(Curve("A", [line], limits)), "policy")
    places = max(found, key=lambda points: points[-1][0] - points[0][0])  # not the legend's
    (x0, y0), (x1, y1), (x2, y2) = places
    assert (x2 - x0) / (x1 - x0) == pytest.approx(3, rel=1e-3)
    assert (y2 - y0) / (y1 - y0) == pytest.approx(8, rel=1e-3)
    assert x1 > x0
    assert y1 > y0


def test_before_and_after_stand_in_their_columns():
    old = {"text": "OLD", "tokens": 7, "finished": True}
    new = {"text": "NEW", "tokens": 3, "finished": False}
    table = _answers([{"prompt": "P", "before": old, "after": new}], {"held_out": 1})
    assert re.findall(r"<th scope=.col.>(\w+)", table) == ["Prompt", "Before", "After"]
    assert re.findall(r"<td>(\w+)<small>([^<]+)", table) == [
        ("OLD", "7 tokens"),
        ("NEW", "3 tokens, cut"),
    ]
    results = {"held_out": None, "seconds": 1.0, "tokens": {"chosen": 4.0, "rejected": 5.0}}
    results |= {"tokens_before": 7.0, "tokens_after": 3.0}
    results |= {"finished_before": 1.0, "finished_after": 0.25}
    assert verdict(results).endswith(
        "Answers had 7.0 tokens and have 3.0; 25% of them end, 100% did before."
    )
    found = dict(_numbers({"results": results | {"kl": 1.5, "kl_error": 0.25, "kl_replies": 8}}))
    assert found == {
        "KL from the start, 8 sampled replies (nats)": "1.50 ± 0.25",
        "Tokens of an answer before": "7.0",
        "Tokens of an answer after": "3.0",
        "Answers that end, before": "100%",
        "Answers that end, after": "25%",
        "Tokens of the chosen responses trained on": "4.0",
        "Tokens of the rejected responses trained on": "5.0",
        "Seconds": "1",
    }


def test_every_held_out_number_stands_beside_its_name():
    kinds = ("longer", "shorter")
    held = {f"accuracy_chosen_{kind}": 0.25 + i / 2 for i, kind in enumerate(kinds)}
    held |= {f"pairs_chosen_{kind}": i + 3 for i, kind in enumerate(kinds)}
    held |= {"loss": 0.5, "accuracy": 0.6, "margin": 0.7, "chosen_logp": 1.5, "rejected_logp": -2.5}
    results = {"held_out": held, "seconds": 1.0, "tokens": {}}
    found = {name.removeprefix("Held out: "): v for name, v in _numbers({"results": results})}
    assert found["reward accuracy where chosen is longer"] == "0.250"
    assert found["reward accuracy where chosen is shorter"] == "0.750"
    assert found["pairs whose chosen response is longer"] == 3
    assert found["pairs whose chosen response is shorter"] == 4
    assert found["log-probability of chosen since the start (nats)"] == "1.500"
    assert found["log-probability of rejected since the start (nats)"] == "-2.500"
    assert len(found) == len(held) + 1


# --- in a browser --------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "values", [[0.5], [0.0, 0.0], [-3e5, 2e5], [math.nan, 1.0], [1e-7, 2e-7], [-1.0, -1.0]]
)
def test_any_values_can_be_drawn(values):
    text = draw(Curve("A", [Line("a", figures.POLICY, "-", range(len(values)), values)]))
    assert text.startswith("<figure><svg ")
    assert "nan" not in text
    said = re.search(r'aria-label="([^"]+)"', text)[1]
    assert f"to {values[-1]:.2f} at update {len(values) - 1}" in said
