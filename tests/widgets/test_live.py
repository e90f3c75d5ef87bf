"""Each widget: one spec, the same controls live and static, and a static form in every output."""

import importlib
import inspect
import json
import re

import ipywidgets
import pytest

from dpo_lib import widgets
from dpo_lib.widgets import base, join
from dpo_lib.widgets.spec import (
    Button,
    Choice,
    LogSlider,
    Slider,
    Toggle,
    WidgetSpec,
    label_math,
)

LIVE = {
    "slider": ipywidgets.FloatSlider,
    "logslider": ipywidgets.FloatLogSlider,
    "choice": ipywidgets.Dropdown,
    "toggle": ipywidgets.Checkbox,
}


class AllControls(base.BookWidget):
    """One control of each type; its browser module exists in the tests only."""

    @classmethod
    def build_spec(cls):
        return WidgetSpec(
            "all_controls",
            "All controls",
            (
                Slider("score", "Score r_w", -1.0, 1.0, 0.1, 0.3, digits=1, unit="nats"),
                LogSlider("beta", "β", -2.0, 1.0, 0.5, 0.1, color="policy"),
                Choice("loss", "Loss", ("dpo", "ipo"), "ipo"),
                Toggle("smooth", "Smooth", True),
                Button("next", "Next"),
            ),
            state={"rows": ["first"]},
        )

    @staticmethod
    def describe(values):
        return f"{values['score']} {values['loss']}"


@pytest.fixture(params=[*join.kinds(), "all_controls"])
def widget(request, monkeypatch):
    if request.param == "all_controls":
        monkeypatch.setattr(base.join, "esm", lambda kind: "export default { render() {} };")
        monkeypatch.setattr(base.join, "static_css", lambda kinds: "")
        return AllControls()
    return getattr(widgets, widgets.class_name(request.param))()


def static_json(widget):
    html = widget._repr_mimebundle_()["text/html"]
    return json.loads(re.search(r">(\{.*\})</script>", html, re.DOTALL)[1])


def test_each_browser_module_has_its_class():
    assert widgets.__all__ == sorted(map(widgets.class_name, join.kinds()))
    for kind in join.kinds():
        module = importlib.import_module(f"dpo_lib.widgets.{kind}")
        cls = getattr(widgets, widgets.class_name(kind))
        assert cls.__module__ == module.__name__
        assert issubclass(cls, base.BookWidget)
        assert cls.build_spec().kind == kind
        assert inspect.getdoc(cls)


def test_live_and_static_controls_are_those_of_the_spec(widget):
    static = {control["name"]: control for control in static_json(widget)["controls"]}
    assert list(static) == [control.name for control in widget.spec.controls]
    for control in widget.spec.controls:
        entry = static[control.name]
        assert entry["label"] == control.label
        if entry["type"] == "button":
            assert control.name not in widget.controls
            continue
        live = widget.controls[control.name]
        assert type(live) is LIVE[entry["type"]]
        assert live.value == control.value
        if isinstance(control, Choice):
            assert live.index == entry["value"]
            assert list(live.options) == entry["options"]
        else:
            assert entry["value"] == control.value
        unit = f" ({control.unit})" if getattr(control, "unit", "") else ""
        assert live.description == label_math(control.label + unit)
        if isinstance(control, (Slider, LogSlider)):
            for key in ("min", "max", "step"):
                assert getattr(live, key) == getattr(control, key) == entry[key]
            kind = "f" if isinstance(control, Slider) else "g"
            assert live.readout_format == f".{control.digits}{kind}"
            color = None if control.color == "ink" else join.palette("light")[control.color]
            assert live.style.handle_color == color


def test_each_control_is_linked_to_the_plot_in_the_browser(widget):
    assert all(link.target[0] is widget.plot for link in widget.links)
    links = {link.target[1]: link.source for link in widget.links}
    expected = {
        name: (control, "index" if isinstance(control, ipywidgets.Dropdown) else "value")
        for name, control in widget.controls.items()
    }
    assert links == expected
    for name, value in static_json(widget)["state"].items():
        assert getattr(widget.plot, name) == value
    for name in (*widget.spec.values, "spec"):
        assert widget.plot.trait_metadata(name, "sync"), name


def test_the_output_has_a_live_and_a_static_form(widget):
    bundle = widget._repr_mimebundle_()
    live = bundle["application/vnd.jupyter.widget-view+json"]
    assert live["model_id"] == widget.model_id
    assert bundle["text/plain"] == repr(widget)
    html = bundle["text/html"]
    assert html.startswith(f'<div class="dpo-static" data-dpo-widget="{widget.spec.kind}">')
    assert widget.describe(widget.spec.values).split("_")[0] in html
    assert widget.model_id not in html
    assert html == type(widget)()._repr_mimebundle_()["text/html"]


def test_a_changed_control_is_seen_in_values(widget):
    assert widget.values == {
        control.name: static_json(widget)["controls"][i]["value"]
        if isinstance(control, Button)
        else control.value
        for i, control in enumerate(widget.spec.controls)
    } | dict(widget.spec.state)
    for control in widget.spec.controls:
        if isinstance(control, Slider):
            widget.controls[control.name].value = control.max
            assert widget.values[control.name] == control.max
            widget.controls[control.name].value = control.value + 1e-13  # as the browser sends it
            assert widget.values[control.name] == control.value


def test_start_values_reach_both_forms():
    widget = widgets.ScoreSigmoid(r_w=-1.5)
    assert widget.controls["r_w"].value == widget.plot.r_w == -1.5
    assert static_json(widget)["controls"][0]["value"] == -1.5
    assert "−1.50" in widget._repr_mimebundle_()["text/html"]
    with pytest.raises(ValueError, match="r_w"):
        widgets.ScoreSigmoid(r_w=9)


def test_names_of_the_base_widget_cannot_be_taken(monkeypatch):
    spec = WidgetSpec("demo", "Demo", (Slider("layout", "Layout", 0.0, 1.0, 0.5, 0.5),))
    monkeypatch.setattr(AllControls, "build_spec", classmethod(lambda cls: spec))
    with pytest.raises(ValueError, match="layout"):
        AllControls()


def test_an_unknown_widget_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchWidget"):
        _ = widgets.NoSuchWidget
