"""From the stored results: the README's table, the figures, and what the project promised.

python -m dpo_lib.benchmarks.report    rewrites the part of README.md between its markers, and
two figures
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dpo_lib.benchmarks import job as whole_job
from dpo_lib.benchmarks.growth import linearity, prompt_price, seconds_of
from dpo_lib.benchmarks.machine import KINDS, RESULTS
from dpo_lib.benchmarks.step import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]  # of the project
README = ROOT / "README.md"
FIGURE = ROOT / "book" / "images" / "benchmark.svg"
GROWTH_FIGURE = FIGURE.with_name("growth.svg")
START, END = "<!-- benchmark -->", "<!-- /benchmark -->"
Rows = Sequence[Mapping[str, Any]]


class Results(NamedTuple):
    """What the benchmarks stored for one kind of processor: settings and rows of each."""

    step: Mapping[str, Any]
    growth: Mapping[str, Any] | None = None  # None: not measured there
    book: Mapping[str, Any] | None = None
    job: Mapping[str, Any] | None = None
    live: Mapping[str, Any] | None = None


def load(folder: Path) -> Results:
    """Read what is stored of one kind of processor."""
    found = {}
    for name in Results._fields:
        path = folder / f"{name}.json"
        found[name] = json.loads(path.read_text("utf-8")) if path.exists() else None
    if found["step"] is None:
        raise ValueError(f"{folder} has no step.json")
    return Results(**found)


def load_all(folder: Path = RESULTS) -> dict[str, Results]:
    """All stored results by kind of processor, those that the figures show first."""
    places = {name: place for place, name in enumerate(KINDS)}
    kinds = (path.name for path in folder.iterdir() if path.is_dir())
    ordered = sorted(kinds, key=lambda name: (places.get(name, len(places)), name))
    return {name: load(folder / name) for name in ordered}


# --- steps ---------------------------------------------------------------------------------------


class Summary(NamedTuple):
    """One implementation on one model."""

    name: str
    title: str
    seconds: float  # median
    ratio: tuple[float, float, float]  # to ours of the same round: quartiles
    share: float  # of the fastest matrix products of its type, by the unavoidable operations
    peak_mib: int
    gap: float  # nats
    tolerance: float  # nats


def summaries(step: Mapping[str, Any], model: str) -> list[Summary]:
    """Every implementation, the fastest first; ours, of which each group has a run, once."""
    gflop = step["settings"][model]["gflop"]
    found = []
    names = dict.fromkeys(name for group in GROUPS[model].values() for name in group)
    for name in names:
        rows = [row for row in step["rows"] if (row["model"], row["name"]) == (model, name)]
        if not rows:
            continue  # what this machine cannot do, or was not asked for
        seconds = [s for row in rows for s in row["seconds"]]
        rates = [work / s for row in rows for work, s in zip(gflop, row["seconds"], strict=True)]
        dtype = "bfloat16" if "bfloat16" in rows[0]["title"] else "float32"
        quartiles = (1.0, 1.0, 1.0)
        if name != "ours":
            quartiles = tuple(statistics.quantiles(ratios(step, model, name, "ours"), n=4))
        found.append(
            Summary(
                name,
                rows[0]["title"],
                statistics.median(seconds),
                quartiles,
                statistics.median(rates) / step["settings"]["matmul_gflops"][dtype]["best"],
                max(row["peak_mib"] for row in rows),
                max(row["gap"] for row in rows),
                rows[0]["tolerance"],
            )
        )
    return sorted(found, key=lambda summary: summary.ratio[1])


def ratios(step: Mapping[str, Any], model: str, one: str, other: str) -> list[float]:
    """Time of one over time of the other, of every round in which both took their turn."""
    found = []
    for group in GROUPS[model]:
        seconds = {
            row["name"]: row["seconds"]
            for row in step["rows"]
            if (row["model"], row["group"]) == (model, group)
        }
        if one in seconds and other in seconds:
            found += [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    if not found:
        raise ValueError(f"no group of {model} has both {one!r} and {other!r}")
    return found


# --- what was promised ---------------------------------------------------------------------------


class Limit(NamedTuple):
    """A number that must not be above, or below, a bound."""

    text: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is within the bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "holds" if self.holds else "MISSED"
        return f"{verdict:7} {self.value:10.3g} {sign} {self.bound:<8.3g} {self.text}"


def limits(results: Results) -> list[Limit]:
    """Everything that the benchmarks must show; what the machine left out is not asked for."""
    step, growth, book, job, live = results

    def ratio(model: str, one: str, other: str) -> float:
        return statistics.median(ratios(step, model, one, other))

    measured = {(row["model"], row["name"]) for row in step["rows"]}
    large = {summary.name: summary for summary in summaries(step, "smollm2")}
    gaps = [
        summary.gap
        for model in GROUPS
        for summary in summaries(step, model)
        if summary.tolerance < 1e-4
    ]
    memory = large["ours"].peak_mib / large["trl_float32"].peak_mib
    found = [
        Limit("float32 losses apart (nats)", max(gaps), 1e-5),
        *(
            Limit(f"SmolLM2: time of {one} over {other}", ratio("smollm2", one, other), bound)
            for one, other, bound in (
                ("ours", "trl_default", 0.33),
                ("ours", "trl_precomputed", 0.42),
                ("ours_stock", "trl_default", 0.45),
                ("ours_stock", "trl_precomputed", 0.55),
                ("ours_bfloat16", "trl_default", 0.25),
            )
            if {("smollm2", one), ("smollm2", other)} <= measured
        ),
        *(
            Limit(
                f"{title}: time of ours over ours_stock", ratio(model, "ours", "ours_stock"), 1.02
            )
            for model, title in MODELS.items()
            if (model, "ours_stock") in measured
        ),
        Limit("SmolLM2: peak memory of ours over trl_float32", memory, 0.65),
        Limit("SmolLM2: share of the matrix-product rate", large["ours"].share, 0.5, True),
        *(
            Limit(f"{title}: time of ours over {other}", ratio(model, "ours", other), bound)
            for model, title in (("tiny", "tiny GPT"), ("tiny_bytes", "tiny GPT on bytes"))
            for other, bound in (("trl_default", 0.33), ("trl_precomputed", 0.45))
            if (model, other) in measured
        ),
    ]
    for model in MODELS if growth else ():
        line = linearity(growth["rows"], model)
        price = prompt_price(growth["rows"], model, "ours")
        found += [
            Limit(f"{model}: R² of time against unique tokens", line.r_squared, 0.95, True),
            Limit(f"{model}: price of a prompt token in response tokens", price, 1.25),
        ]
    if job:
        found += [
            Limit(
                "file to finished run: time of ours over trl_precomputed",
                whole_job.ratio(job),
                0.45,
            )
        ]
    found += page_limits(live["rows"]) if live else []
    if not book:
        return found
    heaviest = max(
        row["bytes"] for row in book["rows"] if row.get("page", "").startswith("notebooks/")
        and row["what"] == "page"
    )  # fmt: skip
    return [
        *found,
        Limit("book: heaviest chapter (MB)", heaviest / 1e6, 1.5),
        Limit("book: build from stored outputs (s)", _book(book, "build")["seconds"], 20),
        Limit("book: ten chapters validated (s)", _book(book, "notebooks")["seconds"], 180),
        Limit("import of dpo_lib over import of torch", import_ratio(book), 1.05),
    ]


def page_limits(rows: Rows) -> list[Limit]:
    """What a reader who trains in the page may have to wait for."""
    updates = {row["pairs"]: row["median_ms"] for row in rows if row["what"] == "update"}
    key = next(row for row in rows if row["what"] == "key")
    return [
        Limit("page: update on 32 pairs (ms)", updates[32], 60),
        Limit("page: update on 8 pairs (ms)", updates[8], 15),
        Limit("page: key to frame while it trains, median (ms)", key["median_ms"], 16),
        Limit("page: key to frame while it trains, 95 % (ms)", key["late_ms"], 33),  # two frames
        Limit("page: its own part of that, 95 % (ms)", key["own_late_ms"], 16),
    ]


def _book(book: Mapping[str, Any], what: str) -> Mapping[str, Any]:
    return next(row for row in book["rows"] if row["what"] == what)


def import_ratio(book: Mapping[str, Any]) -> float:
    """Median over pairs of imports."""
    seconds = {row["package"]: row["seconds"] for row in book["rows"] if row["what"] == "import"}
    pairs = zip(seconds["dpo_lib"], seconds["torch"], strict=True)
    return statistics.median(ours / torchs for ours, torchs in pairs)


# --- the README ----------------------------------------------------------------------------------


def readme_part(everything: Mapping[str, Results]) -> str:
    """For each kind of processor a table in Markdown, with what one has to know to read it."""
    first = next(iter(everything.values()))
    parts = [f"![{alternative_text(first.step)}](book/images/{FIGURE.name})"]
    if len(everything) > 1:
        parts.append(side_by_side(everything))
    for kind, results in everything.items():
        parts += [f"*Processors with {KINDS.get(kind, kind)}*", *_one_kind(results)]
    return "\n\n".join(parts)


def side_by_side(everything: Mapping[str, Results]) -> str:
    """A table of the ratios on all kinds of processors."""
    columns = [(model, kind) for model in MODELS for kind in everything]
    found = {
        (model, kind): {row.name: row for row in summaries(everything[kind].step, model)}
        for model, kind in columns
    }
    heads = [f"{MODELS[model]}, {KINDS.get(kind, kind)}" for model, kind in columns]
    lines = [
        f"| Time of a step against ours | {' | '.join(heads)} |",
        f"| --- |{' --: |' * len(columns)}",
    ]
    rows = dict.fromkeys(row for column in columns for row in found[column])
    titles = {name: row.title for column in found.values() for name, row in column.items()}
    for name in rows:
        cells = [
            f"{found[column][name].ratio[1]:.2f}" if name in found[column] else "left out"
            for column in columns
        ]
        lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _one_kind(results: Results) -> list[str]:
    step, growth, book, job, _ = results
    machine, large = step["settings"]["machine"], step["settings"]["smollm2"]
    versions = machine["versions"]
    rate = step["settings"]["matmul_gflops"]
    tiny = {summary.name: summary for summary in summaries(step, "tiny")}
    words, byte = step["settings"]["tiny"], step["settings"]["tiny_bytes"]
    bytes_ = {summary.name: summary for summary in summaries(step, "tiny_bytes")}
    lines = [
        "| One step of | SmolLM2: time | against ours | of the machine | peak memory | loss apart "
        "| tiny GPT: time | against ours |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in summaries(step, "smollm2"):
        small = tiny.get(row.name)
        title = f"**{row.title}**" if row.name == "ours" else row.title
        cells = [
            title,
            f"{row.seconds:.2f} s",
            _ratio(row),
            f"{row.share:.0%}",
            f"{row.peak_mib:,} MiB",
            _gap(row),
            f"{1000 * small.seconds:.0f} ms" if small else "–",
            _ratio(small) if small else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    unique = statistics.median(large["unique_tokens"])
    whole = statistics.median(large["sequence_tokens"])
    held = "".join(f", {name}={value}" for name, value in machine.get("held_by", {}).items())
    bfloat16 = f", in bfloat16 {rate['bfloat16']['best']:.0f}" if "bfloat16" in rate else ""
    notes = [
        f"Measured on {machine['date']}: {machine['processor']}{held}, "
        f"{machine['threads']} threads, {machine['memory_gib']} GiB; torch {versions['torch']}, "
        f"transformers {versions['transformers']}, TRL {versions['trl']}. Medians of "
        f"{large['rounds']} rounds in which all take turns, each in a process of its own, on the "
        "same pairs "
        f"({large['batch_size']} a step, prompts of about {large['tokens']['prompt'][1]:.0f} "
        f"tokens, responses of about {large['tokens']['chosen'][1]:.0f}; {whole:.0f} tokens in "
        f"all, {unique:.0f} of them unique, since prompts begin alike); in brackets the quartiles "
        "of the ratio.",
        "*Of the machine*: the operations that no step gets around, as a share of what its fastest "
        f"matrix products would do in that time ({rate['float32']['best']:.0f} GFLOP/s"
        f"{bfloat16}). *Loss apart*: the largest distance from our "
        "loss over all updates, in nats. Reference log-probabilities are known before the step in "
        "ours and where it says precomputed. Padding a batch is not timed, packing one is. The "
        "peers' steps are written anew from their descriptions; TRL is TRL.",
        f"The tiny GPT has 4 layers of width 128 and {words['vocabulary']:,} tokens in its "
        f"vocabulary; a step takes {words['batch_size']} pairs of random ids. The vocabulary "
        f"decides: with single bytes ({byte['vocabulary']} ids) it is "
        + ", ".join(
            f"{bytes_[name].ratio[1]:.2f} times our time with {who}"
            for name, who in BYTES.items()
            if name in bytes_
        )
        + ".",
    ]
    if large.get("left_out"):
        notes.append(
            f"Left out: {', '.join(large['left_out'])}, since "
            f"{next(iter(large['left_out'].values()))}."
        )
    if growth:
        line = linearity(growth["rows"], "smollm2")
        price = {
            name: prompt_price(growth["rows"], "smollm2", name)
            for name in ("ours", "trl_precomputed")
        }
        notes.append(
            f"Our time is linear in unique tokens (R² {line.r_squared:.3f} from "
            f"{_range(growth, 'smollm2')} tokens a step), and a prompt is paid once: a token of it "
            f"costs {price['ours']:.1f} times a token of a response, with TRL "
            f"{price['trl_precomputed']:.1f} times."
        )
    if job:
        notes.append(_job(job))
    table = "\n".join(lines)
    return [table, *notes, *([_pages(book)] if book else [])]


def _pages(book: Mapping[str, Any]) -> str:
    pages = [row["bytes"] for row in book["rows"] if row["what"] == "page"]
    sliders = [row["median_ms"] for row in book["rows"] if row["what"] == "slider"]
    return (
        f"The book: its {len(pages)} pages weigh {min(pages) / 1e6:.1f} to {max(pages) / 1e6:.1f} "
        f"MB; it is built in {_book(book, 'build')['seconds']:.0f} s, its ten chapters are run and "
        f"compared in {_book(book, 'notebooks')['seconds']:.0f} s; a slider shows its effect after "
        f"{min(sliders):.0f} to {max(sliders):.0f} ms; importing `dpo_lib` takes "
        f"{import_ratio(book):.2f} times as long as importing torch alone."
    )


def _job(job: Mapping[str, Any]) -> str:
    settings, rows = job["settings"], {row["name"]: row for row in job["rows"]}
    mine, theirs = rows["ours"], rows["trl_precomputed"]
    return (
        f"From a file of {settings['pairs']:,} pairs to the finished run, with LoRA "
        f"({settings['updates']} updates of {settings['batch']} pairs, {settings['held_out']} "
        f"held-out pairs scored before, every {settings['evaluate']} updates and at the end): ours "
        f"{statistics.median(mine['seconds']):.0f} s and {mine['peak_mib']:,} MiB, TRL in float32 "
        f"with a precomputed reference {statistics.median(theirs['seconds']):.0f} s and "
        f"{theirs['peak_mib']:,} MiB, {whole_job.ratio(job):.2f} of its time."
    )


def alternative_text(step: Mapping[str, Any]) -> str:
    """What the figure shows, in words."""
    parts = []
    for model, title in MODELS.items():
        others = [row for row in summaries(step, model) if row.name in SHOWN and row.name != "ours"]
        listed = ", ".join(f"{row.title} {row.ratio[1]:.1f}" for row in others)
        parts.append(f"{title}: {listed}")
    return f"Time of a step in multiples of ours. {'; '.join(parts)}."


def _ratio(row: Summary) -> str:
    low, middle, high = row.ratio
    return "1" if row.name == "ours" else f"{middle:.2f} ({low:.2f}–{high:.2f})"


def _gap(row: Summary) -> str:
    if row.name == "ours":
        return "–"
    return f"{row.gap:.0e}" if row.gap >= 1e-6 else "< 1e-06"


def _range(growth: Mapping[str, Any], model: str) -> str:
    counts = [row["unique_tokens"] for row in growth["rows"] if row["model"] == model]
    return f"{min(counts)} to {max(counts)}"


def with_part(readme: str, part: str) -> str:
    """The README with this text between its markers."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"README.md must have the markers {START} and {END}")
    return f"{before}{START}\n\n{part}\n\n{END}{after}"


# --- the figures ---------------------------------------------------------------------------------

BYTES = {
    "trl_default": "TRL's default",
    "trl_precomputed": "TRL precomputed",
    "textbook": "the textbook's step",
}
UNITS = {
    "batch": "pairs",
    "prompt": "tokens of a prompt",
    "response": "tokens of a response",
    "vocabulary": "vocabulary",
}
MODELS = {"smollm2": "SmolLM2-135M", "tiny": "tiny GPT"}
SHOWN = (
    *("ours", "ours_stock", "ours_bfloat16"),
    *("trl_default", "trl_float32", "trl_precomputed", "trl_bfloat16"),
    *("textbook", "concatenated", "raschka", "lesson"),
)


def draw(step: Mapping[str, Any]) -> Figure:
    """Bars: time of a step in multiples of ours, on both models."""
    import matplotlib.pyplot as plt

    from dpo_lib import figures

    figures.use_book_style()
    figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), sharey=True)
    axes[0].invert_yaxis()
    order = [row.name for row in summaries(step, "smollm2") if row.name in SHOWN]
    for ax, (model, title) in zip(axes, MODELS.items(), strict=True):
        found = {row.name: row for row in summaries(step, model)}
        for place, name in enumerate(order):
            row = found[name]
            color = figures.POLICY if name.startswith("ours") else figures.MUTED
            ax.barh(place, row.ratio[1], color=color, height=0.68)
            ax.annotate(
                f"{row.ratio[1]:.2f}",
                (row.ratio[1], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        ax.set_yticks(range(len(order)), [found[name].title for name in order])
        ax.set_title(f"{title} (ours: {_time(found['ours'].seconds)})")
        ax.set_xlabel("time of a step against ours")
        ax.margins(x=0.14)
        ax.grid(axis="y", visible=False)
    return figure


def draw_growth(growth: Mapping[str, Any]) -> Figure:
    """Lines: time of a step against each size of the work; a row of panels for each model."""
    import matplotlib.pyplot as plt

    from dpo_lib import figures

    figures.use_book_style()
    colors = {
        "ours": figures.POLICY,
        "trl_precomputed": figures.REJECTED,
        "textbook": figures.MUTED,
    }
    labels = {"ours": "ours", "trl_precomputed": "TRL, precomputed", "textbook": "textbook"}
    columns = ("batch", "prompt", "response", "vocabulary")
    figure, axes = plt.subplots(2, 4, figsize=(8.6, 4.4))
    for line, (model, title) in zip(axes, MODELS.items(), strict=True):
        for ax, varied in zip(line, columns, strict=True):
            rows = [r for r in growth["rows"] if (r["model"], r["varied"]) == (model, varied)]
            ax.set_visible(bool(rows))
            for name, color in colors.items():
                some = [row for row in rows if row["name"] == name]
                x, y = [row[varied] for row in some], [seconds_of(row) for row in some]
                if some:
                    ax.plot(x, y, "o-", color=color, label=labels[name], markersize=3)
            ax.set(xlabel=UNITS[varied], xlim=(0, None), ylim=(0, None))
        line[0].set_title(title)
        line[0].set_ylabel("time of a step (s)")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="upper right")
    return figure


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def main() -> None:
    """Write the README's part and the figures; print what was promised and what was found."""
    from dpo_lib.figures import save_svg

    everything = load_all()
    text = with_part(README.read_text("utf-8"), readme_part(everything))
    README.write_text(text, "utf-8")
    first = next(iter(everything.values()))
    save_svg(draw(first.step), FIGURE)
    save_svg(draw_growth(first.growth), GROWTH_FIGURE)
    for kind, results in everything.items():
        print(f"{KINDS.get(kind, kind)}:")
        for limit in limits(results):
            print(limit)


if __name__ == "__main__":
    main()
