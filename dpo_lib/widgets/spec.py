"""What a widget is made of: one description from which both of its forms are built."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

# Rounding of a step such as 0.1 in binary: far below any step, far above float64's noise.
GRID_TOLERANCE = 1e-9

# Names of the palette (css/theme.css); each has one meaning everywhere in the book.
COLORS = ("ink", "muted", "chosen", "rejected", "policy", "reference", "accent")


@dataclass(frozen=True)
class Slider:
    """A number that the reader drags: ``value`` in [``min``, ``max``], in steps of ``step``."""

    name: str  # what the browser module and Python call it
    label: str  # what the reader sees; r_w and π_{ref} get a subscript
    min: float
    max: float
    step: float
    value: float
    digits: int = 2  # decimals shown
    unit: str = ""
    color: str = "ink"  # one of COLORS

    def __post_init__(self) -> None:
        _check_name(self.name, self.label)
        _check_range(self, _as_number(self.name, "value", self.value), "value", fewest_digits=0)

    def check(self, value: object) -> float:
        """Return ``value`` as a number on this slider's grid, or raise ``ValueError``."""
        return float(replace(self, value=value).value)

    def on_grid(self, value: float) -> float:
        """Return the step nearest to ``value``: a dragged slider may say 0.30000000000000004."""
        return round(self.min + round((value - self.min) / self.step) * self.step, 10)


@dataclass(frozen=True)
class LogSlider:
    """A positive number dragged on a logarithmic scale: ``value`` is a power of ten.

    ``min``, ``max`` and ``step`` are those of the exponent; ``value`` is the number itself.
    """

    name: str
    label: str
    min: float
    max: float
    step: float
    value: float
    digits: int = 2  # significant digits shown
    unit: str = ""
    color: str = "ink"  # one of COLORS

    def __post_init__(self) -> None:
        _check_name(self.name, self.label)
        if not _as_number(self.name, "value", self.value) > 0:
            raise ValueError(f"{self.name}: value must be above 0, got {self.value}")
        _check_range(self, math.log10(self.value), "log10(value)", fewest_digits=1)

    def check(self, value: object) -> float:
        """Return ``value`` as a number on this slider's grid, or raise ``ValueError``."""
        return float(replace(self, value=value).value)


@dataclass(frozen=True)
class Choice:
    """One of several options. ``value`` is the option; the browser sees its index."""

    name: str
    label: str
    options: tuple[str, ...]
    value: str

    def __post_init__(self) -> None:
        _check_name(self.name, self.label)
        if not isinstance(self.options, list | tuple):
            raise ValueError(f"{self.name}: options must be a list, got {self.options!r}")
        for option in self.options:
            _check_text(self.name, "each of options", option)
        object.__setattr__(self, "options", tuple(self.options))
        if len(self.options) < 2 or len(set(self.options)) != len(self.options):
            raise ValueError(f"{self.name}: options must be two or more and differ: {self.options}")
        if not (isinstance(self.value, str) and self.value in self.options):
            raise ValueError(f"{self.name}: value {self.value!r} is not one of {self.options}")

    def check(self, value: object) -> str:
        """Return ``value`` if it is one of the options, or raise ``ValueError``."""
        return replace(self, value=value).value


@dataclass(frozen=True)
class Toggle:
    """A checkbox."""

    name: str
    label: str
    value: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name, self.label)
        if not isinstance(self.value, bool):
            raise ValueError(f"{self.name}: value must be True or False, got {self.value!r}")

    def check(self, value: object) -> bool:
        """Return ``value`` if it is a bool, or raise ``ValueError``."""
        return replace(self, value=value).value


@dataclass(frozen=True)
class Button:
    """A button. ``value`` counts its clicks; the browser draws it in both forms."""

    name: str
    label: str
    value: int = 0

    def __post_init__(self) -> None:
        _check_name(self.name, self.label)
        if not (_is_whole(self.value) and self.value >= 0):
            raise ValueError(f"{self.name}: value must be a count, got {self.value!r}")

    def check(self, value: object) -> int:
        """Return ``value`` if it is a count, or raise ``ValueError``."""
        return replace(self, value=value).value


Control = Slider | LogSlider | Choice | Toggle | Button


@dataclass(frozen=True)
class WidgetSpec:
    """A widget: its browser module, its title, its controls, its data.

    ``data`` is fixed (curves, stored runs, texts); ``state`` is what the browser module itself
    changes besides the controls (clicked rows, the current step) with its first value. Both
    hold JSON values only.
    """

    kind: str
    title: str
    controls: tuple[Control, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_name(self.kind):
            raise ValueError(f"kind must be a lower-case module name, got {self.kind!r}")
        _check_text(self.kind, "title", self.title)
        if not isinstance(self.controls, list | tuple) or not all(
            isinstance(control, Control) for control in self.controls
        ):
            raise ValueError(f"{self.kind}: controls must be a list of them, got {self.controls!r}")
        object.__setattr__(self, "controls", tuple(self.controls))
        for part in ("data", "state"):
            value = getattr(self, part)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ValueError(f"{self.kind}: {part} must be values by name, got {value!r}")
        names = [control.name for control in self.controls] + list(self.state)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.kind}: names used twice: {twice}")
        for name in self.state:
            _check_name(name, name)
        try:
            json.dumps([dict(self.data), dict(self.state)], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            names = ", ".join(self.state)
            raise ValueError(
                f"{self.kind}: data and state ({names}) must be finite JSON: {error}"
            ) from error

    @property
    def values(self) -> dict[str, Any]:
        """Every control's value and every state's, by name."""
        return {control.name: control.value for control in self.controls} | dict(self.state)

    def with_values(self, **values: object) -> WidgetSpec:
        """Return the same widget starting from other values."""
        unknown = sorted(set(values) - set(self.values))
        if unknown:
            raise ValueError(f"{self.kind} has no {unknown}; it has {list(self.values)}")
        controls = tuple(
            replace(control, value=control.check(values[control.name]))
            if control.name in values
            else control
            for control in self.controls
        )
        state = {name: values.get(name, first) for name, first in self.state.items()}
        return replace(self, controls=controls, state=state)

    def to_json(self) -> dict[str, Any]:
        """Return the form that the browser reads; a choice's value becomes its index."""
        return {
            "kind": self.kind,
            "title": self.title,
            "controls": [_control_json(control) for control in self.controls],
            "data": dict(self.data),
            "state": dict(self.state),
        }

    def to_html(self, fallback: str, preview: str = "") -> str:
        """Return the static page's placeholder; ``fallback`` is read when no script runs.

        ``preview`` is HTML that stands for the widget until its code is there.
        """
        state = json.dumps(self.to_json(), allow_nan=False, separators=(",", ":"))  # ASCII only
        # Inside <script>, only these can end the element or open a comment.
        for character in "<>&":
            state = state.replace(character, f"\\u{ord(character):04x}")
        shown = f'<div class="dpo-preview" hidden>{preview}</div>\n' if preview else ""
        return (
            f'<div class="dpo-static" data-dpo-widget="{self.kind}">\n'
            f'<p class="dpo-fallback"><strong>{label_html(self.title)}.</strong> '
            f"{label_html(fallback)}</p>\n{shown}"
            f'<script type="application/json">{state}</script>\n'
            "</div>"
        )


def label_html(text: str) -> str:
    """Escape ``text`` and turn ``r_w`` and ``π_{ref}`` into subscripts."""
    return re.sub(
        r"_(?:\{([^{}]*)\}|(\w))",
        lambda match: f"<sub>{match[1] or match[2]}</sub>",
        html.escape(text),
    )


def label_math(text: str) -> str:
    r"""Write ``r_w`` and ``π_{ref}`` as LaTeX, which ipywidgets shows: ``\(r_{w}\)``."""
    return re.sub(r"(\w)_(?:\{([^{}]*)\}|(\w))", _inline_math, text)


def _inline_math(match: re.Match[str]) -> str:
    return rf"\({match[1]}_{{{match[2] or match[3]}}}\)"


def fmt(value: float, digits: int) -> str:
    """Write ``value`` with ``digits`` decimals, a true minus sign and no negative zero.

    What lies in the middle is rounded away from 0, as the browser does.
    """
    exact = Decimal(float(value))
    if exact.is_finite():
        exact = exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, Context(prec=400))
    text = f"{exact:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def _control_json(control: Control) -> dict[str, Any]:
    entry = {"type": type(control).__name__.lower(), **asdict(control)}
    if isinstance(control, Choice):
        entry["options"] = list(control.options)
        entry["value"] = control.options.index(control.value)
    return entry


def _as_number(name: str, what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: {what} must be a number, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{name}: {what} must be a number that a float can hold") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value) is not None


def _check_name(name: object, label: object) -> None:
    if not _is_name(name):
        raise ValueError(f"name must be lower-case letters, digits and _, got {name!r}")
    _check_text(str(name), "label", label)


def _check_text(name: str, what: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: {what} must be text that is not blank, got {value!r}")


def _check_range(
    control: Slider | LogSlider, position: float, what: str, fewest_digits: int
) -> None:
    name, digits, color = control.name, control.digits, control.color
    if not (_is_whole(digits) and fewest_digits <= digits <= 10):
        raise ValueError(
            f"{name}: digits must be a whole number in [{fewest_digits}, 10], got {digits!r}"
        )
    if not isinstance(control.unit, str):
        raise ValueError(f"{name}: unit must be text, got {control.unit!r}")
    if not (isinstance(color, str) and color in COLORS):
        raise ValueError(f"{name}: color must be one of {COLORS}, got {color!r}")
    low, high, step = (_as_number(name, n, getattr(control, n)) for n in ("min", "max", "step"))
    numbers = (low, high, step, position)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{name}: min, max, step and value must be finite, got {numbers}")
    if not low < high:
        raise ValueError(f"{name}: min {low} must be below max {high}")
    if not step > 0:
        raise ValueError(f"{name}: step must be above 0, got {step}")
    if not _on_grid((high - low) / step):
        raise ValueError(f"{name}: step {step} does not divide min {low} to max {high}")
    if not low - GRID_TOLERANCE <= position <= high + GRID_TOLERANCE:
        raise ValueError(f"{name}: {what} {position} is outside min {low} to max {high}")
    if not _on_grid((position - low) / step):
        raise ValueError(f"{name}: {what} {position} is not a step of {step} from min {low}")


def _on_grid(steps: float) -> bool:
    if not math.isfinite(steps):  # more than a float can count
        return False
    return abs(steps - round(steps)) <= GRID_TOLERANCE * max(1.0, abs(steps))
