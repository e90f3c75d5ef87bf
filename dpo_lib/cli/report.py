"""``report.html``: curves, numbers and answers of a run in one file that needs no other."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dpo_lib.cli.curves import Line, draw
from dpo_lib.cli.records import write_whole
from dpo_lib.training import TrainingHistory

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --muted: #5b6672; --grid: #d9dee4;
  --chosen: #0072b2; --rejected: #c14f00; --policy: #00794f; --panel: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --paper: #14191f; --ink: #e6eaee; --muted: #a3afba;
  --grid: #38424d; --chosen: #56b4e9; --rejected: #ff9a56; --policy: #35c795; --panel: #1d242c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p { max-width: 44rem; }
.curves { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
figure { margin: 0; } figcaption { color: var(--muted); font-size: .9rem; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--muted); font-size: 11px; }
.grid { stroke: var(--grid); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.policy { stroke: var(--policy); } .chosen { stroke: var(--chosen); }
.rejected { stroke: var(--rejected); } .thin { stroke-width: 1; opacity: .55; }
.dashed { stroke-dasharray: 6 4; } .key line { stroke-width: 3; } .key text { fill: var(--ink); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
caption { text-align: left; color: var(--muted); padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; }
th, td { border-bottom: 1px solid var(--grid); }
thead th { border-bottom-width: 2px; } .answers td { white-space: pre-wrap; min-width: 14rem; }
.answers small { color: var(--muted); display: block; white-space: normal; }
.note { background: var(--panel); border-left: 4px solid var(--rejected); padding: .6rem 1rem; }
"""


# Losses whose margin tells when to stop: beta times log-ratios in nats, nothing that ends it early
# and nothing that holds up the chosen responses.
_STOP_BY_MARGIN = ("dpo", "cdpo", "robust", "r_dpo")
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
    """Write the report of a finished run."""
    settings = run["settings"]
    title = f"{settings['model']}, trained on {Path(run['data']).name}"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{_text(_how(run))}</p>",
        *(f'<p class="note">{_text(line[:1].upper() + line[1:])}.</p>' for line in run["advice"]),
        "<h2>While it trained</h2>",
        f'<div class="curves">{"".join(_curves(history))}</div>',
        "<h2>Numbers</h2>",
        _numbers(run),
    ]
    if samples:
        parts += ["<h2>Answers before and after</h2>", _answers(samples, run)]
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )
    write_whole(path, page)


def _text(value: object) -> str:
    return html.escape(str(value))


def _how(run: dict[str, Any]) -> str:
    s = run["settings"]
    size = f"LoRA of rank {s['lora']}" if s["lora"] else "all weights"
    skipped = ", ".join(f"{number} {kind}" for kind, number in run["skipped"].items())
    return (
        f"{run['pairs']} pairs, {run['held_out']} of them held out"
        + (f" ({skipped} skipped)" if skipped else "")
        + f". {s['steps']} updates of {s['batch_size']} pairs, {size}, loss {s['loss']}, "
        f"beta {s['beta']:g}, learning rate {s['lr']:g}, seed {s['seed']}."
    )


def _curves(history: TrainingHistory) -> list[str]:
    def rows(name: str) -> tuple[list[float], list[float]]:
        return history.column("step"), history.column(name)

    def held(name: str) -> tuple[list[float], list[float]]:
        return (
            [row["step"] for row in history.evaluations],
            [row[f"held_out_{name}"] for row in history.evaluations],
        )

    def both(name: str, other: str) -> list[Line]:
        lines = [Line("batch", "policy thin", *rows(name))]
        if history.evaluations:
            lines.append(Line("held out", "policy", *held(other)))
        return lines

    shifts = [
        Line("chosen, batch", "chosen thin", *rows("chosen_logp")),
        Line("rejected, batch", "rejected thin", *rows("rejected_logp")),
    ]
    if history.evaluations:
        shifts += [
            Line("chosen, held out", "chosen", *held("chosen_logp")),
            Line("rejected, held out", "rejected dashed", *held("rejected_logp")),
        ]
    return [
        draw("Loss", "nats", both("loss", "loss")),
        draw("Reward accuracy", "share", both("reward_accuracy", "accuracy"), low=0.0, high=1.0),
        draw("Margin of the rewards", "nats", both("margin", "margin")),
        draw("Log-probability since the start", "nats", shifts),
    ]


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
}


def _numbers(run: dict[str, Any]) -> str:
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
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>'
        for name, value in rows
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Numbers"><table>'
        "<caption>After the last update</caption>"
        f"<tbody>{body}</tbody></table></div>"
    )


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
        '<div class="scroll" role="region" tabindex="0" aria-label="Answers">'
        '<table class="answers"><caption>The likeliest token at every step; '
        f"{which}</caption>"
        '<thead><tr><th scope="col">Prompt</th><th scope="col">Before</th>'
        f'<th scope="col">After</th></tr></thead><tbody>{body}</tbody></table></div>'
    )
