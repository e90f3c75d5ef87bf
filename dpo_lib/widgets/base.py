"""The live form of a widget, and the placeholder that becomes its static form."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import anywidget
import ipywidgets
import traitlets

from dpo_lib.widgets import join
from dpo_lib.widgets.spec import (
    Button,
    Choice,
    Control,
    LogSlider,
    Slider,
    Toggle,
    WidgetSpec,
    label_html,
    label_math,
)


class BookWidget(ipywidgets.VBox):
    """A widget of the book: controls and a drawing when a kernel is there, static without one.

    A subclass gives ``build_spec`` and ``describe``. Keyword arguments of the constructor start
    the widget from other values than the spec's; ``spec`` takes another's place (see `Bet`).
    """

    # When a page of the book loads the widget's code: "page" (with the page), "near" (when the
    # reader comes near it) or "use" (when the reader first touches its `preview`).
    load: Literal["page", "near", "use"] = "page"
    # What the browser module loads when it is first asked for the model; see `live.parts`.
    parts: Mapping[str, Callable[[], Any]] = {}

    def __init__(self, spec: WidgetSpec | None = None, **values: object) -> None:
        spec = self.build_spec() if spec is None else spec
        if not isinstance(spec, WidgetSpec):
            raise ValueError(f"spec must be a WidgetSpec, got {spec!r}")
        self.spec = spec.with_values(**values)
        if values:
            self._check_state()
        self.plot = _make_plot(self.spec, self.parts)
        self.controls: dict[str, ipywidgets.Widget] = {}
        self.links: list[ipywidgets.Widget] = []
        # One width for all labels, so that the sliders stand in a column.
        label_width = f"{max((len(c.label) for c in self.spec.controls), default=0) * 0.6:.0f}em"
        for control in self.spec.controls:
            if isinstance(control, Button):  # a click has no value to link; the plot draws it
                continue
            live = _make_control(control, label_width)
            synced = "index" if isinstance(control, Choice) else "value"
            self.links.append(ipywidgets.jslink((live, synced), (self.plot, control.name)))
            self.controls[control.name] = live
        title = ipywidgets.HTML(f"<strong>{label_html(self.spec.title)}</strong>")
        super().__init__([title, self.plot, *self.controls.values()])

    @classmethod
    def build_spec(cls) -> WidgetSpec:
        """Return the widget's description with its default values."""
        raise NotImplementedError

    @staticmethod
    def describe(values: Mapping[str, Any]) -> str:
        """Say in words what the widget shows for ``values``; the browser says the same."""
        raise NotImplementedError

    @classmethod
    def preview(cls, spec: WidgetSpec) -> str:
        """Return a widget's first drawing: with ``load = "use"`` it stands until the code comes."""
        return ""

    @classmethod
    def static_html(cls, spec: WidgetSpec) -> str:
        """Return the placeholder that becomes the widget's static form."""
        return spec.to_html(cls.describe(spec.values), cls.preview(spec))

    def _check_state(self) -> None:
        """Refuse a state that cannot be put into words: then it cannot be drawn."""
        try:
            said = self.describe(self.spec.values)
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise self._refused(repr(error)) from error
        if not isinstance(said, str):
            raise self._refused(f"it says {said!r:.60}")

    def _refused(self, why: str) -> ValueError:
        return ValueError(
            f"{self.spec.kind}: its state ({', '.join(self.spec.state)}) cannot be shown: {why}"
        )

    @property
    def values(self) -> dict[str, Any]:
        """The present value of every control and state, by name."""
        now = {name: getattr(self.plot, name) for name in self.spec.values}
        now |= {name: control.value for name, control in self.controls.items()}
        for control in self.spec.controls:
            if isinstance(control, Slider):
                now[control.name] = control.on_grid(now[control.name])
        return now

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.spec.title}"

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, Any]:
        bundle = dict(super()._repr_mimebundle_(**kwargs))
        bundle["text/plain"] = repr(self)
        bundle["text/html"] = self.static_html(self.spec)
        return bundle


def _make_plot(spec: WidgetSpec, parts: Mapping[str, Callable[[], Any]]) -> anywidget.AnyWidget:
    names = tuple(spec.values)
    carried = {"parts": {name: part() for name, part in parts.items()}} if parts else {}
    taken = [name for name in ("spec", *carried, *names) if hasattr(anywidget.AnyWidget, name)]
    if taken:
        raise ValueError(f"{spec.kind}: these names belong to the base widget: {taken}")
    json_spec = spec.to_json()
    values = {control["name"]: control["value"] for control in json_spec["controls"]}
    return _plot_class(spec.kind, (*carried, *names))(
        spec=json_spec, **carried, **values, **spec.state
    )


@functools.cache
def _plot_class(kind: str, names: tuple[str, ...]) -> type[anywidget.AnyWidget]:
    traits = {name: traitlets.Any().tag(sync=True) for name in ("spec", *names)}
    source = {"_esm": join.esm(kind), "_css": join.static_css([kind]), "__module__": __name__}
    return type(f"Plot_{kind}", (anywidget.AnyWidget,), {**source, **traits})


def _make_control(control: Control, label_width: str) -> ipywidgets.Widget:
    unit = f" ({control.unit})" if getattr(control, "unit", "") else ""
    style = {"description_width": label_width}
    if isinstance(control, (Slider, LogSlider)) and control.color != "ink":
        # One fixed color for both themes: JupyterLab gives no way to follow them here.
        style["handle_color"] = join.palette("light")[control.color]
    common = {
        "description": label_math(control.label + unit),
        "style": style,
        "layout": {"width": "auto", "max_width": "46rem"},
    }
    match control:
        case Slider():
            return ipywidgets.FloatSlider(
                value=control.value,
                min=control.min,
                max=control.max,
                step=control.step,
                readout_format=f".{control.digits}f",
                **common,
            )
        case LogSlider():
            return ipywidgets.FloatLogSlider(
                value=control.value,
                base=10,
                min=control.min,
                max=control.max,
                step=control.step,
                readout_format=f".{control.digits}g",
                **common,
            )
        case Choice():
            return ipywidgets.Dropdown(options=control.options, value=control.value, **common)
        case Toggle():
            return ipywidgets.Checkbox(value=control.value, **common)
    raise TypeError(f"no live control for {control!r}")
