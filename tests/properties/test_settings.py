"""Command lines, states of widgets and answers to exercises, of any kind."""

import html
import json
import math
import re
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo_lib import widgets
from dpo_lib.cli import main
from dpo_lib.exercises import Verdict, check
from dpo_lib.exercises.all import EXERCISES
from dpo_lib.widgets.spec import Button, Choice, LogSlider, Slider, Toggle, WidgetSpec
from tests.properties.budget import outcome, tried
from tests.properties.values import any_text, json_values, junk, plain

# --- command lines -------------------------------------------------------------------------------

OPTIONS = (
    "--lora", "--full", "--loss", "--option", "--beta", "--lr", "--steps", "--epochs", "--seed",
    "--batch-size", "--accumulate", "--warmup", "--schedule", "--dtype", "--held-out", "--map",
    "--eval-data", "--eval-pairs", "--eval-every", "--samples", "--max-new-tokens", "--threads",
    "--label", "--score", "--system", "--max-length", "--template", "--encoding", "--skip-bad",
    "--rows", "--per-prompt", "--judge", "--pairs", "--timeout", "--json", "--port", "--repeats",
)  # fmt: skip
typed = st.lists(
    st.sampled_from(OPTIONS)
    | st.sampled_from(["0", "-1", "1e400", "nan", "alpha=0.3", "=", "a=b=c", "1.5", "dpo", "--"])
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    max_size=6,
)


@pytest.mark.parametrize("command", ["train", "show", "eval", "label", "judge"])
@given(typed)
@tried(15, parts=5)
def test_a_command_line_of_any_words_is_refused_in_words(tmp_path_factory, command, words):
    out = tmp_path_factory.getbasetemp() / "never"
    named = {"show": [], "eval": ["--model", "tiny"]}.get(command, ["--out", str(out)])
    data = [] if command in ("label", "judge") else ["--data"]
    said, errors = [], sys.stderr
    sys.stderr = Said(said)
    try:
        code = main([command, *named, *data, str(out / "none.jsonl"), *words])
    except SystemExit as stop:  # argparse
        code = stop.code
    finally:
        sys.stderr = errors
    text = "".join(said)
    if code == 0:  # --help
        assert {"-h", "--help"} & {*words} or any(w.startswith(("-h", "--h")) for w in words)
        return
    assert code == 2
    assert "error: " in text
    assert "Traceback" not in text


class Said:
    """Standard error, kept."""

    encoding, errors = "utf-8", "replace"

    def __init__(self, parts):
        self.write = parts.append

    def flush(self):
        """Nothing waits."""

    def isatty(self):
        return False


# --- widgets -------------------------------------------------------------------------------------


@given(st.sampled_from(widgets.__all__), st.data())
@tried(40)
def test_a_widget_that_starts_from_anything(name, data):
    cls = getattr(widgets, name)
    spec = cls.build_spec()
    if not spec.values:
        return
    broken = data.draw(st.sampled_from([*spec.values]) | any_text, label="value of")
    value = data.draw(junk | json_values, label="value")
    widget, refusal = outcome(cls, **{broken: value})
    if refusal:
        assert broken in refusal or repr(broken) in refusal or "outside the vocab" in refusal
        return
    json.loads(json.dumps(widget.spec.to_json(), allow_nan=False))
    assert widget._repr_mimebundle_()["text/html"]
    widget.close()


BET = {"name": "a", "question": "Q", "said": "S."}
AXIS = {"axis": (0.0, 2.0, 0.1)}
MAKERS = {
    "number": (
        widgets.Bet.number_spec,
        {**BET, **AXIS, "truth": 1.0, "unit": "sd"},
    ),
    "curve": (
        widgets.Bet.curve_spec,
        {**BET, **AXIS, "x": [0, 1], "truth": [1.0, 2.0], "x_label": "x", "y_label": "y"},
    ),
    "choice": (
        widgets.Bet.choice_spec,
        {**BET, "options": ("a", "b"), "truth": "a", "rows": ("",), "why": ("w",)},
    ),
    "quiz": (widgets.Quiz.spec_of, {"chapter": "2"}),
    "clicks": (widgets.YourClicks.spec_of, {"mode": "loss"}),
    "exercise": (widgets.Exercise.spec_of, {"number": "2.1"}),
    "done": (widgets.Done.spec_of, {"chapters": [{"name": "a"}]}),
    "short": (widgets.TrainItYourself.short_spec, {"name": "beta"}),
}


@given(st.data())
@tried(60)
def test_a_widget_made_of_anything(data):
    make, arguments = MAKERS[data.draw(st.sampled_from([*MAKERS]), label="maker")]
    broken = data.draw(st.sampled_from([*arguments]), label="argument")
    spec, refusal = outcome(make, **{**arguments, broken: data.draw(junk, label="value")})
    assert broken in refusal if refusal else json.loads(json.dumps(spec.to_json(), allow_nan=False))


LABEL = {"name": "a", "label": "A"}
SLID = {**LABEL, "min": -1.0, "max": 1.0, "step": 0.1, "value": 0.3}
SHOWN = {"digits": 2, "unit": "sd", "color": "ink"}
CONTROLS = {
    Slider: {**SLID, **SHOWN},
    LogSlider: {**SLID, **SHOWN, "value": 0.1},
    Choice: {**LABEL, "options": ("x", "y"), "value": "x"},
    Toggle: {**LABEL, "value": True},
    Button: {**LABEL, "value": 1},
}
SPEC = {
    "kind": "demo",
    "title": "T",
    "controls": (Slider(**SLID),),
    "data": {"x": 1},
    "state": {"y": None},
}


@given(st.data())
@tried(100)
def test_a_control_or_a_widget_described_by_anything(data):
    make = data.draw(st.sampled_from([*CONTROLS, WidgetSpec]), label="what")
    arguments = CONTROLS.get(make, SPEC)
    broken = data.draw(st.sampled_from([*arguments]), label="argument")
    made, refusal = outcome(make, **{**arguments, broken: data.draw(junk, label="value")})
    if refusal:
        assert re.search(rf"\b{broken}\b", refusal)
        return
    spec = made if make is WidgetSpec else WidgetSpec(**{**SPEC, "controls": [made]})
    json.loads(json.dumps(spec.to_json(), allow_nan=False))
    assert f">{html.escape(spec.title)}.<" in spec.to_html("Without a script.")


@given(st.data())
@tried(60)
def test_a_control_given_any_value(data):
    make = data.draw(st.sampled_from([*CONTROLS]), label="what")
    control, value = make(**CONTROLS[make]), data.draw(junk, label="value")
    taken, refusal = outcome(control.check, value)
    assert re.match("a: .*value", refusal) if refusal else taken == value


@given(st.sampled_from([widgets.Bet, widgets.Done, widgets.LossFamily]), junk)
@tried(20)
def test_a_widget_of_a_description_of_any_kind(cls, value):
    widget, refusal = outcome(cls, value)
    assert "spec must be" in refusal if refusal else value is None
    if widget:
        widget.close()


@pytest.fixture(scope="module")
def annotator():
    """One widget, whose states the browser sets."""
    widget = widgets.Annotator()
    yield widget
    widget.close()


entries = st.fixed_dictionaries(
    {"choice": st.sampled_from(["first", "second", "skip"]) | json_values, "seconds": json_values}
)


@given(st.lists(entries | json_values, max_size=3) | json_values, json_values)
@tried(30)
def test_rows_of_whatever_state_the_browser_sets(annotator, judged, fresh):
    annotator.plot.set_trait("judged", judged)
    annotator.plot.set_trait("fresh", fresh)
    rows, refusal = outcome(lambda: annotator.rows)
    assert ("judged" in refusal or "fresh" in refusal) if refusal else len(rows) <= len(judged)


# --- exercises -----------------------------------------------------------------------------------


class Stubborn:
    """Neither equal to anything nor different."""

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    __hash__ = None


def fail(*arguments):
    raise ArithmeticError


def endless(*arguments):
    return endless(*arguments)


def spoil(*arguments):
    for argument in arguments:
        if torch.is_tensor(argument) and not argument.requires_grad:
            argument.zero_()
    return arguments[0]


returned = (
    junk
    | plain
    | st.sampled_from(
        [torch.tensor(math.nan), [torch.tensor([1.0])], {"loss": torch.ones(2)}, [[1.0], 2.0], []]
    )
)


@given(st.sampled_from([*EXERCISES]), returned)
@tried(25)
def test_an_answer_of_any_kind_is_judged_in_words(number, value):
    verdict = check(number, lambda *_, **__: value, seed=0)
    assert isinstance(verdict, Verdict)
    assert not verdict.right
    assert verdict.words.strip()


@pytest.mark.parametrize("number", EXERCISES)
@pytest.mark.parametrize(
    "function", [fail, endless, spoil, lambda *_: Stubborn(), dict, max, print]
)
def test_strange_functions_are_judged_in_words(number, function, capsys):
    verdict = check(number, function, seed=0)
    assert not verdict.right
    assert verdict.words.strip()
