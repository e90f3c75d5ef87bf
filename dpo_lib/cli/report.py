"""``report.html``: curves, numbers and answers of a run in one file that needs no other."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from dpo_lib import figures
from dpo_lib.cli.records import write_whole
from dpo_lib.training import TrainingHistory

TEMPLATE = Path(__file__).with_name("report.html")

# Losses whose margin tells when to stop: beta times log-ratios in nats, nothing that ends it early
# and nothing that holds up the chosen responses.
_STOP_BY_MARGIN = ("dpo", "cdpo", "robust_dpo", "robust", "r_dpo")
_WORKS_AGAINST = {  # a fall of the chosen responses, by loss
    "rpo": "a larger alpha (--option alpha=...)",
    "dpop": "a larger penalty (--option penalty=...)",
    "orpo": "a lower --beta, which leaves likelihood more weight,",
}


def advice(history: TrainingHistory, results: dict[str, Any], loss: str) -> list[str]:
    """What the numbers of a run suggest to look at.

    Parameters
    ----------
    history : TrainingHistory
    results : dict
        The results in ``run.json``.
    loss : str
        Its name. Rewards of two losses have two scales, so most of what is said here rests on
        what was measured without them: log-probabilities and answers.

    Returns
    -------
    list of str
        A sentence each, without a full stop; none if nothing stands out.
    """
    final = results["held_out"]
    if _is_of_thumbs(history):
        return [*_about_thumbs(history, final), *_about_answers(results)]
    found = [*_about_chosen(history, final, loss), *_about_answers(results)]
    margin = final["margin"] if final else history.steps[-1]["margin"]
    which = "held-out margin" if final else "margin"
    if loss in _STOP_BY_MARGIN and margin > 2:
        found.append(
            f"the {which} is {margin:.1f}; with {loss}, beyond 1 to 2 answers often get worse: "
            "compare with fewer steps or a lower learning rate"
        )
    if final and final["accuracy"] <= 0.5:
        found.append("held-out accuracy is not above a coin's: nothing general was learned")
    both = [final.get(f"accuracy_chosen_{name}") for name in ("longer", "shorter")] if final else []
    if None not in both and both and abs(both[0] - both[1]) > 0.3:
        found.append(
            f"accuracy is {both[0]:.2f} where the chosen response is longer, {both[1]:.2f} where "
            "it is shorter: part of what was learned may be the length"
        )
    return found


def _about_chosen(
    history: TrainingHistory, final: dict[str, Any] | None, loss: str
) -> Iterator[str]:
    """Whether the chosen responses have lost likelihood since the start, or since their best."""
    chosen = final["chosen_logp"] if final else history.steps[-1]["chosen_logp"]
    if chosen < -0.5:
        against = _WORKS_AGAINST.get(loss, "a term of fine-tuning (--loss rpo)")
        yield (
            f"chosen responses have become less likely ({chosen:+.1f} nats); {against} "
            "works against it"
        )
    elif final and history.evaluations:  # all on the same pairs
        way = [(row["held_out_chosen_logp"], row["step"]) for row in history.evaluations]
        (best, step), (last, _) = max(way), way[-1]
        if best >= 1 and last < best / 2:
            yield (
                f"chosen responses stood at {best:+.1f} nats after {step} updates and have fallen "
                f"to {last:+.1f}: compare with {step} updates"
            )


def _is_of_thumbs(history: TrainingHistory) -> bool:
    """Whether the run trained on thumbs: its rows have KTO's level."""
    return bool(history.steps) and "level" in history.steps[0]


def _about_thumbs(history: TrainingHistory, final: dict[str, Any] | None) -> Iterator[str]:
    """Whether thumbs up have lost likelihood, and whether thumbs are told apart at all."""
    shift = (final or history.steps[-1]).get("desirable_logp", 0.0)
    if shift < -0.5:
        yield (
            f"responses with a thumb up have become less likely ({shift:+.1f} nats); a larger "
            "desirable_weight (--option desirable_weight=...) works against it"
        )
    if final and final.get("auc", 1.0) <= 0.5:
        yield "held-out AUC is not above a coin's: nothing general was learned"


def _about_answers(results: dict[str, Any]) -> Iterator[str]:
    """Whether the model's own answers have shrunk, or no longer end."""
    before, after = results.get("tokens_before"), results.get("tokens_after")
    if before and after < before / 2:
        yield (
            f"answers have shrunk from {before:.1f} to {after:.1f} tokens: read them before "
            "trusting the accuracy"
        )
    before, after = results.get("finished_before"), results.get("finished_after")
    if before and before >= 0.5 and after < before / 2:
        yield (
            f"{after:.0%} of the answers end, {before:.0%} did before: read them before trusting "
            "the accuracy"
        )


def write_report(
    path: Path, run: dict[str, Any], history: TrainingHistory, samples: Sequence[dict] | None
) -> None:
    """Write the report of a finished run: verdict and answers, then curves, then numbers."""
    settings = run["settings"]
    notes = (f'<p class="note">{_text(line[:1].upper() + line[1:])}.</p>' for line in run["advice"])
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=_text(f"{settings['model']}, trained on {_names(run['data'])}"),
        verdict=_text(verdict(run["results"])),
        notes="\n".join(notes),
        answers=_answers(samples, run) if samples else "",
        curves="\n".join(draw(curve) for curve in curves(history)),
        how=_text(_how(run)),
        numbers="\n".join(
            f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
            for name, value in _numbers(run)
        ),
    )
    write_whole(path, page)


def verdict(results: dict[str, Any]) -> str:
    """What came of a run, in two or three sentences."""
    final, said = results["held_out"], []
    if final and "thumbs_up" in final:
        if "auc" in final:
            said.append(
                f"Of held-out responses, one with a thumb up has a higher reward than one with a "
                f"thumb down in {final['auc']:.0%} of the cases, by {final['margin']:.2f} on the "
                "mean."
            )
        for kind in ("desirable", "undesirable"):
            if f"{kind}_logp" in final:
                thumb = {"desirable": "up", "undesirable": "down"}[kind]
                now = _likelier(final[f"{kind}_logp"])
                said.append(f"Responses with a thumb {thumb} have become {now}.")
    elif final:
        said.append(
            f"On held-out pairs the chosen response has the higher reward in "
            f"{final['accuracy']:.0%}, by {final['margin']:.2f} on the mean; it has become "
            f"{_likelier(final['chosen_logp'])}, the rejected one "
            f"{_likelier(final['rejected_logp'])}."
        )
    else:
        said.append("Nothing was held out: nothing here says what holds for other prompts.")
    if results.get("tokens_after") is not None:
        said.append(
            f"Answers had {results['tokens_before']:.1f} tokens and have "
            f"{results['tokens_after']:.1f}; {results['finished_after']:.0%} of them end, "
            f"{results['finished_before']:.0%} did before."
        )
    return " ".join(said)


def _likelier(nats: float) -> str:
    return f"{'more' if nats >= 0 else 'less'} likely ({nats:+.1f} nats)"


def _text(value: object) -> str:
    return html.escape(str(value))


def _how(run: dict[str, Any]) -> str:
    s, unit = run["settings"], run.get("unit", "pairs")
    size = f"LoRA of rank {s['lora']}" if s["lora"] else "all weights"
    skipped = ", ".join(f"{number} {kind}" for kind, number in run["skipped"].items())
    return (
        f"{run['pairs']} {unit}, {run['held_out']} of them held out"
        + (f" ({skipped} skipped)" if skipped else "")
        + f". {s['steps']} updates of {s['batch_size']} {unit}, {size}, loss {s['loss']}, "
        f"beta {s['beta']:g}, learning rate {s['lr']:g}, seed {s['seed']}."
    )


class Line(NamedTuple):
    """One line of a figure."""

    label: str
    color: str  # of the palette
    style: str  # of Matplotlib
    x: Sequence[float]
    y: Sequence[float]


class Curve(NamedTuple):
    """What one figure shows over the updates."""

    title: str
    lines: list[Line]
    limits: tuple[float, float] | None = None  # of the vertical axis


def curves(history: TrainingHistory) -> list[Curve]:
    """The curves of a run: each batch, and the held-out pairs where there are any."""

    def line(label: str, color: str, style: str, rows: list[dict[str, Any]], name: str) -> Line:
        some = [(row["step"], row[name]) for row in rows if name in row]  # a thumb may be missing
        return Line(label, color, style, [x for x, _ in some], [y for _, y in some])

    def lines(name: str, other: str, label: str, color: str, style: str = "-") -> list[Line]:
        found = [line(f"{label}batch", color, "thin", history.steps, name)]
        if history.evaluations:
            held = line(f"{label}held out", color, style, history.evaluations, f"held_out_{other}")
            found.append(held)
        return found

    def both(name: str, other: str) -> list[Line]:
        return lines(name, other, "", figures.POLICY)

    if _is_of_thumbs(history):
        shifts = lines("desirable_logp", "desirable_logp", "thumb up, ", figures.CHOSEN)
        shifts += lines(
            "undesirable_logp", "undesirable_logp", "thumb down, ", figures.REJECTED, "--"
        )
        return [
            Curve("Loss", both("loss", "loss")),
            Curve("Thumbs up above thumbs down (AUC)", both("reward_auc", "auc"), (-0.03, 1.03)),
            Curve("Log-probability since the start (nats)", shifts),
            Curve("Level, from mismatched responses (nats)", both("level", "level")),
        ]
    shifts = lines("chosen_logp", "chosen_logp", "chosen, ", figures.CHOSEN)
    shifts += lines("rejected_logp", "rejected_logp", "rejected, ", figures.REJECTED, "--")
    return [
        Curve("Loss (nats)", both("loss", "loss")),
        Curve("Reward accuracy (share)", both("reward_accuracy", "accuracy"), (-0.03, 1.03)),
        Curve("Margin of the rewards (nats)", both("margin", "margin")),
        Curve("Log-probability since the start (nats)", shifts),
    ]


def draw(curve: Curve) -> str:
    """A figure as SVG in the page's colors; its text alternative says where each line goes."""
    from matplotlib.figure import Figure

    with figures.book_style():
        figure = Figure(figsize=(5.2, 3.0))
        axes = figure.subplots()
        for line in curve.lines:
            thin = line.style == "thin"
            axes.plot(
                line.x,
                line.y,
                color=line.color,
                label=line.label,
                linestyle="-" if thin else line.style,
                linewidth=0.9 if thin else 1.8,
                alpha=0.6 if thin else 1.0,
                marker="." if thin and len(line.x) == 1 else "",
            )
        axes.set_xlabel("update")
        if curve.limits:
            axes.set_ylim(*curve.limits)
        axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        svg = figures.figure_svg(figure)
    for name, color in figures.PALETTE.items():
        svg = svg.replace(color, f"var(--{name})")
    said = _text(f"{curve.title}. " + " ".join(_say(line) for line in curve.lines))
    svg = re.sub(
        r'<svg xmlns="\S+"', lambda _: f'<svg role="img" aria-label="{said}"', svg, count=1
    )
    return f"<figure>{svg}<figcaption>{_text(curve.title)}</figcaption></figure>"


def _say(line: Line) -> str:
    found = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y)]
    if not found:
        return f"{line.label}: no values."
    (first, start), (last, end) = found[0], found[-1]
    return (
        f"{line.label}: from {start:.2f} at update {first:g} to {end:.2f} at update {last:g}, "
        f"between {min(y for _, y in found):.2f} and {max(y for _, y in found):.2f}."
    )


_NAMES = {
    "loss": "loss (nats)",
    "accuracy": "reward accuracy",
    "margin": "margin (nats)",
    "chosen_logp": "log-probability of chosen since the start (nats)",
    "rejected_logp": "log-probability of rejected since the start (nats)",
    "accuracy_chosen_longer": "reward accuracy where chosen is longer",
    "accuracy_chosen_shorter": "reward accuracy where chosen is shorter",
    "pairs_chosen_longer": "pairs whose chosen response is longer",
    "pairs_chosen_shorter": "pairs whose chosen response is shorter",
    "auc": "thumbs up above thumbs down (AUC)",
    "desirable_logp": "log-probability of thumbs up since the start (nats)",
    "undesirable_logp": "log-probability of thumbs down since the start (nats)",
    "level": "level, from mismatched responses (nats)",
    "thumbs_up": "thumbs up",
    "thumbs_down": "thumbs down",
}


def _numbers(run: dict[str, Any]) -> list[tuple[str, object]]:
    """Rows of the table."""
    results = run["results"]
    rows = [
        (f"Held out: {_NAMES[name]}", f"{value:.3f}" if isinstance(value, float) else value)
        for name, value in (results["held_out"] or {}).items()
    ]
    if "kl" in results:
        spread = f"{results['kl']:.2f} ± {results['kl_error']:.2f}"
        rows.append((f"KL from the start, {results['kl_replies']} sampled replies (nats)", spread))
        rows.append(("Tokens of an answer before", f"{results['tokens_before']:.1f}"))
        rows.append(("Tokens of an answer after", f"{results['tokens_after']:.1f}"))
        rows.append(("Answers that end, before", f"{results['finished_before']:.0%}"))
        rows.append(("Answers that end, after", f"{results['finished_after']:.0%}"))
    for side, tokens in results["tokens"].items():
        rows.append((f"Tokens of the {side} responses trained on", f"{tokens:.1f}"))
    rows.append(("Seconds", f"{results['seconds']:.0f}"))
    return rows


def _answers(samples: Sequence[dict], run: dict[str, Any]) -> str:
    which = "the prompts were not trained on" if run["held_out"] else "prompts of the training set"

    def cell(reply: dict) -> str:
        end = "" if reply["finished"] else ", cut"
        return f"<td>{_text(reply['text'])}<small>{reply['tokens']} tokens{end}</small></td>"

    body = "".join(
        f'<tr><th scope="row">{_text(row["prompt"])}</th>{cell(row["before"])}{cell(row["after"])}'
        "</tr>"
        for row in samples
    )
    return (
        "<h2>Answers before and after</h2>"
        '<div class="scroll" role="region" tabindex="0" aria-label="Answers">'
        '<table class="answers"><caption>The likeliest token at every step; '
        f"{which}</caption>"
        '<thead><tr><th scope="col">Prompt</th><th scope="col">Before</th>'
        f'<th scope="col">After</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _names(data: str | Sequence[str]) -> str:
    """The names of the files that were trained on."""
    return ", ".join(Path(path).name for path in ([data] if isinstance(data, str) else data))
