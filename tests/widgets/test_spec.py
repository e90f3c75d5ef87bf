"""The description of a widget: what it accepts, and what the static page is told."""

import json
import math
import re

import pytest

from dpo_lib.widgets.spec import (
    Button,
    Choice,
    LogSlider,
    Slider,
    Toggle,
    WidgetSpec,
    fmt,
    label_html,
    label_math,
)

SLIDER = {"name": "r", "label": "Score", "min": -1.0, "max": 1.0, "step": 0.1, "value": 0.3}
LOG = {"name": "beta", "label": "β", "min": -2, "max": 1, "step": 0.05, "value": 0.1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 1.1}, "outside"),
        ({"value": -1.1}, "outside"),
        ({"value": 0.25}, "not a step"),
        ({"value": float("nan")}, "finite"),
        ({"step": 0.3}, "does not divide"),
        ({"step": 0.0}, "step must be above 0"),
        ({"min": 1.0}, "below max"),
        ({"max": float("inf")}, "finite"),
        ({"digits": -1}, "digits"),
        ({"name": "R w"}, "name"),
        ({"label": " "}, "label"),
        ({"color": "pink"}, "color"),
    ],
)
def test_a_slider_names_what_is_wrong(change, said):
    with pytest.raises(ValueError, match=said):
        Slider(**SLIDER | change)


def test_steps_that_binary_cannot_hold_are_still_on_the_grid():
    for tenth in range(-10, 11):
        Slider(**SLIDER | {"value": tenth / 10})
    Slider("x", "x", 0.0, 0.3, 0.1, 0.1 + 0.2)


def test_a_dragged_slider_stands_at_the_nearest_step():
    slider = Slider("x", "x", 0.1, 1.0, 0.1, 0.1)
    for step in range(10):
        for off in (-0.04, 0.0, 0.04):
            assert slider.on_grid(0.1 + 0.1 * step + off) == (step + 1) / 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 0.0}, "above 0"),
        ({"value": 100.0}, "outside"),
        ({"value": 0.11}, "not a step"),
        ({"digits": 0}, "digits"),
        ({"color": "pink"}, "color"),
    ],
)
def test_a_log_slider_names_what_is_wrong(change, said):
    with pytest.raises(ValueError, match=said):
        LogSlider(**LOG | change)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Choice("loss", "Loss", ("dpo",), "dpo"),
        lambda: Choice("loss", "Loss", ("dpo", "dpo"), "dpo"),
        lambda: Choice("loss", "Loss", ("dpo", "ipo"), "kto"),
        lambda: Toggle("on", "On", 1),
        lambda: Button("next", "Next", -1),
        lambda: Button("next", "Next", True),
    ],
)
def test_other_controls_refuse_bad_values(make):
    with pytest.raises(ValueError, match=r"value|options"):
        make()


def test_a_spec_refuses_what_cannot_work():
    slider = Slider(**SLIDER)
    for bad in (
        {"kind": "Not A Kind"},
        {"title": ""},
        {"controls": (slider, slider)},
        {"controls": (slider,), "state": {"r": 0}},
        {"data": {"curve": [float("nan")]}},
        {"data": {"curve": object()}},
    ):
        with pytest.raises(ValueError, match=r".+"):
            WidgetSpec(**{"kind": "demo", "title": "Demo"} | bad)


def test_other_start_values_are_checked_like_the_first():
    choice = Choice("loss", "Loss", ("dpo", "ipo"), "dpo")
    spec = WidgetSpec("demo", "Demo", (Slider(**SLIDER), choice), state={"rows": []})
    changed = spec.with_values(r=-0.4, loss="ipo", rows=[1])
    assert changed.values == {"r": -0.4, "loss": "ipo", "rows": [1]}
    assert spec.values == {"r": 0.3, "loss": "dpo", "rows": []}
    for bad in ({"r": 2}, {"r": "0.1"}, {"r": True}, {"loss": "kto"}, {"missing": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            spec.with_values(**bad)


def test_the_placeholder_carries_the_spec_whatever_the_texts_hold():
    nasty = '</script><!-- & "quotes" \u2028 <script>'
    spec = WidgetSpec("demo", f"T {nasty}", (Slider(**SLIDER | {"label": nasty}),), {"t": nasty})
    html = spec.to_html(f"Fallback {nasty}")
    assert html.count("<script") == html.count("</script>") == 1
    assert "<!--" not in html
    assert "\n\n" not in html  # a blank line would end a Markdown HTML block
    inside = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1]
    assert json.loads(inside) == json.loads(json.dumps(spec.to_json()))
    assert html == spec.to_html(f"Fallback {nasty}")


def test_a_choice_is_an_index_in_the_browser():
    entry = WidgetSpec("d", "D", (Choice("loss", "Loss", ("a", "b"), "b"),)).to_json()
    assert entry["controls"] == [
        {"type": "choice", "name": "loss", "label": "Loss", "options": ["a", "b"], "value": 1}
    ]


def test_texts():
    assert label_html("r_w < π_{ref}") == "r<sub>w</sub> &lt; π<sub>ref</sub>"
    assert label_html("x_1y") == "x<sub>1</sub>y"  # without braces one character is low
    assert label_math("gap r_w − π_{ref}, β") == r"gap \(r_{w}\) − \(π_{ref}\), β"
    assert [fmt(x, 2) for x in (1.005, -1.7, -0.001, 0.0)] == ["1.00", "−1.70", "0.00", "0.00"]
    assert [fmt(x, 1) for x in (971.25, -0.25, 0.35)] == ["971.3", "−0.3", "0.3"]  # 0.35 is less
    assert [fmt(x, 2) for x in (math.nan, math.inf, 1e20)] == ["NaN", "Infinity", f"{10**20}.00"]
