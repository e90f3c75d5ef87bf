"""The style of the figures: same bytes on every run, palette only, text as text."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from dpo_lib import figures
from dpo_lib.figures import PALETTE, PAPER, figure_svg, label_line, plain_ticks, save_svg, spread
from dpo_lib.training import DPOConfig, TrainingHistory

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def book_style():
    with matplotlib.rc_context():
        figures.use_book_style()
        yield


def sample(height=3.4):
    figure = Figure(figsize=(6.5, height))
    left, right = figure.subplots(1, 2)
    x = np.linspace(-6, 6, 101)
    left.plot(x, 1 / (1 + np.exp(-x)), marker="o", markevery=10)
    left.set(xlabel="score difference Δr", ylabel=r"$P(w \succ l)$", title="The curve")
    label_line(left, 1.7, 0.8455, "Δr = 1.7", figures.REJECTED)
    spread(
        right, [25, 100, 400], [[0.5, 0.3, 0.1], [0.6, 0.2, 0.2]], color=figures.POLICY, label="m"
    )
    right.bar([100], [0.3], hatch="//", width=20)
    right.legend()
    right.set_xscale("log")
    plain_ticks(right.xaxis, [25, 100, 1600])
    return figure


def test_two_runs_give_the_same_bytes():
    first = figure_svg(sample())
    assert first == figure_svg(sample())
    figure = sample()
    assert first == figure_svg(figure) == figure_svg(figure)


def test_only_the_palette_is_used():
    svg = re.sub(r"url\(#[^)]*\)|href=\"#[^\"]*\"|id=\"[^\"]*\"", "", figure_svg(sample()))
    colors = set(re.findall(r"#[0-9a-fA-F]{3,8}\b", svg))
    assert {PAPER, figures.INK, figures.CHOSEN, figures.POLICY, figures.REJECTED} <= colors
    assert colors <= set(PALETTE.values())
    assert set(re.findall(r"(?:fill|stroke): ([a-z]+)", svg)) <= {"none"}


def test_coordinates_have_at_most_two_decimals_and_text_is_untouched():
    figure = Figure()
    ax = figure.subplots()
    ax.plot([0, 1 / 3], [0, 2 / 7])
    ax.set_title("0.845534735 is 1e-9")
    svg = figure_svg(figure)
    assert ">0.845534735 is 1e-9</text>" in svg
    assert not re.search(r"\d\.\d{3}", svg.replace("0.845534735", ""))
    assert "-0 " not in svg


def test_nothing_is_left_that_differs_or_leaks():
    svg = figure_svg(sample())
    root = ElementTree.fromstring(svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not tags & {"metadata", "style", "script", "image"}
    assert not re.search(r"20\d\d-\d\d|Matplotlib|DOCTYPE|<\?xml|<!--|xlink", svg)
    assert root.get("viewBox") == "0 0 468 244.8"
    assert "score difference Δr" in {element.text for element in root.iter(f"{SVG}text")}
    background = next(root.iter(f"{SVG}path"))
    assert background.get("style") == f"fill: {PAPER}"  # opaque


def test_ids_are_used_and_belong_to_one_figure():
    def ids(svg):
        found = [e.get("id") for e in ElementTree.fromstring(svg).iter() if e.get("id")]
        assert len(found) == len(set(found))
        links = re.findall(r"url\(#([^)]+)\)", svg) + re.findall(r'href="#([^"]+)"', svg)
        assert set(found) == set(links)
        return set(found)

    first, second = ids(figure_svg(sample())), ids(figure_svg(sample(height=3)))
    assert first
    assert not first & second


def test_text_takes_the_font_of_the_page():
    root = ElementTree.fromstring(figure_svg(sample()))
    assert "system-ui" in root.get("style")
    assert all("font-family" not in element.get("style", "") for element in root.iter(f"{SVG}text"))
    sizes = re.findall(r"font-size: ([\d.]+)px", figure_svg(sample()))
    assert min(map(float, sizes)) >= 7  # a subscript; labels have 9 and more


def test_save_svg(tmp_path):
    path = save_svg(sample(), tmp_path / "a.svg")
    assert path.read_text(encoding="utf-8") == figure_svg(sample()) + "\n"


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", sorted(PALETTE.keys() - {"paper", "grid"}))
def test_colors_stand_out_from_the_paper(name):
    contrast = (luminance(PAPER) + 0.05) / (luminance(PALETTE[name]) + 0.05)
    assert contrast >= (7 if name == "ink" else 3)


def test_the_palette_has_distinct_lower_case_colors():
    assert len(set(PALETTE.values())) == len(PALETTE) == 9
    assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in PALETTE.values())
    cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert set(cycle) <= set(PALETTE.values())


def band_of(ax):
    (band,) = ax.collections
    vertices = band.get_paths()[0].vertices
    return vertices[:, 1].min(), vertices[:, 1].max()


@pytest.mark.parametrize(("band", "low", "high"), [("range", 1, 3), ("sd", 1, 3)])
def test_spread_draws_the_mean_and_the_band_that_it_names(band, low, high):
    ax = Figure().subplots()
    line = spread(ax, [0, 1], [[1, 1], [2, 2], [3, 3]], band=band, label="mean")
    assert line.get_ydata().tolist() == [2, 2]
    assert band_of(ax) == pytest.approx((low, high))


def test_spread_tells_the_two_bands_apart():
    rows = [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [4.0, 4.0]]
    for band, expected in {"range": (0, 4), "sd": (1 - 2, 1 + 2)}.items():
        ax = Figure().subplots()
        spread(ax, [0, 1], rows, band=band)
        assert band_of(ax) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("samples", "band", "message"),
    [
        ([1.0, 2.0], "range", r"samples must have shape \(seeds, 2\).*\(2,\)"),
        ([[1.0, 2.0, 3.0]], "range", r"samples must have shape.*\(1, 3\)"),
        ([[1.0, 2.0]], "range", "samples must hold at least 2 seeds, got 1"),
        ([[1.0, 2.0]] * 3, "ci", "band must be .* got 'ci'"),
    ],
)
def test_spread_refuses(samples, band, message):
    with pytest.raises(ValueError, match=message):
        spread(Figure().subplots(), [0, 1], samples, band=band)


def test_label_line_leans_away_from_the_point():
    ax = Figure().subplots()
    assert label_line(ax, 0, 0, "a").get_ha() == "left"
    assert label_line(ax, 0, 0, "a", dx=-4).get_ha() == "right"
    assert label_line(ax, 0, 0, "a", ha="center", color=figures.CHOSEN).get_ha() == "center"


def texts(figure):
    root = ElementTree.fromstring(figure_svg(figure))
    return {element.text: element for element in root.iter(f"{SVG}text")}


def test_a_diagram_is_drawn_in_points():
    figure, ax = figures.diagram(270, 100)
    figures.box(ax, 60, 80, "policy", "trained", figures.POLICY)
    figures.arrow(ax, (108, 80), (200, 80), figures.POLICY)
    svg = figure_svg(figure)
    assert 'viewBox="0 0 270 100"' in svg
    note = texts(figure)["trained"]
    assert float(note.get("x")) == 60
    assert 20 < float(note.get("y")) < 34  # from the top, below the box's middle
    assert "M 108 20" in svg  # the arrow's start
    assert figures.POLICY in note.get("style")


def test_springs_are_drawn_to_scale():
    figure = figures.springs([("wrong", -4.0, 0.98), ("right", 4.0, 0.25)], pull_name="weight")
    assert {"wrong", "weight 0.98", "right", "weight 0.25"} <= texts(figure).keys()
    (ax,) = figure.axes
    dots = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert dots == [95, 175, 175, 95]  # winner, loser: the gap of 4 is 80 points
    lengths = [abs(note.xy[0] - note.xyann[0]) for note in ax.texts if hasattr(note, "arrow_patch")]
    assert lengths == pytest.approx([60 * 0.98] * 2 + [60 * 0.25] * 2)


@pytest.mark.parametrize(("gap", "pull"), [(5.1, 0.5), (0.0, 1.01), (0.0, -0.1)])
def test_springs_refuse_what_does_not_fit(gap, pull):
    with pytest.raises(ValueError, match=rf"within ±5.0 .* got {gap} and {pull}"):
        figures.springs([("a", gap, pull)])


SHELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
import matplotlib.pyplot as plt
from dpo_lib import figures
figures.use_book_style()
figures.use_book_style()
figure, ax = plt.subplots()
ax.plot([0, 1 / 3, 2], marker="s")
ax.set_title("$x_1$")
data, metadata = shell.display_formatter.format(figure)
print(sorted(data), metadata)
print(data["image/svg+xml"])
"""


def test_in_ipython_figures_are_stored_as_svg_only_with_the_bytes_of_any_process():
    run = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    kinds, svg = run.stdout.split("\n", 1)
    assert kinds == "['image/svg+xml', 'text/plain'] {}"
    figure = Figure()
    ax = figure.subplots()
    ax.plot([0, 1 / 3, 2], marker="s")
    ax.set_title("$x_1$")
    assert svg == figure_svg(figure) + "\n"


def test_a_history_is_drawn_column_by_column():
    names = ["loss", "reward_accuracy", "margin", "chosen_logp", "rejected_logp"]
    steps = [{"step": i, **{name: i + place for place, name in enumerate(names)}} for i in (0, 1)]
    looks = [{"step": i, "entropy": 1.0 - i, "samples": ["Paris."]} for i in (0, 2)]
    history = TrainingHistory(DPOConfig(steps=2), steps, looks)
    drawn = [
        (line.get_xdata().tolist(), line.get_ydata().tolist())
        for ax in figures.plot_history(history).axes
        for line in ax.get_lines()
    ]
    expected = [([0, 1], history.column(name)) for name in names]
    assert drawn == [*expected, ([0, 2], [1.0, -1.0])]


def test_results_are_found_from_any_folder_and_a_name_that_is_none_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figures.read_results("coin_flip")["rows"]
    for name in ("coin", "../results/coin_flip", ""):
        with pytest.raises(ValueError, match=rf"name '{name}': not one of .*coin_flip, "):
            figures.read_results(name)
