"""Appendix F, act two: a behavior that the model does not have, by pairs that differ in it alone.

Asked for two sentences, SmolLM2-135M-Instruct goes on with "For example," one time in a thousand.
Its own answers of two finished sentences are rejected; chosen is the same first sentence with our
example behind it. So both sides have two sentences, one of them in common, and no rule such as
"more sentences" or "another voice in the first one" can tell them apart.

**Registered before the first run.** DPO, the likelihood of the chosen answers alone (SFT) and both
together (RPO, alpha 2) at the same rates: 2e-4, that of `real_model`, with three seeds of draws,
adapters and order, and 1e-4 with the first seed; 24 updates of 8 pairs, beta .1. What is asked of
each on held-out prompts: in which share of the answers an example stands, how many end, and what
that costs in nats beside the bound.

python -m dpo_lib.experiments.minimal_edits [FOLDER]    goes on from what is in FOLDER, which may
                                                        be that of one_sided (the draws are the
                                                        same); writes
                                                        dpo_lib/results/minimal_edits.json
"""

from __future__ import annotations

from typing import Any

from dpo_lib.cli.drawn import Drawn, read_drawn
from dpo_lib.data import PreferenceRecord, read_jsonl, write_jsonl
from dpo_lib.experiments.by_commands import (
    DRAWS,
    IN_TWO,
    LONGEST,
    Setting,
    Work,
    row_of,
    sentences,
    work_from_arguments,
)
from dpo_lib.experiments.one_sided import ASKED, EACH, SEEDS, is_two, prompts
from dpo_lib.experiments.real_model import DATA, STYLE
from dpo_lib.experiments.store import store

MODULE = "dpo_lib.experiments.minimal_edits"  # also where it is run as a program
RATES, BETA, STEPS = (2e-4, 1e-4), 0.1, 24  # the second rate on the first seed
ARMS = {"dpo": (), "sft": ("--loss", "sft"), "rpo": ("--loss", "rpo", "--option", "alpha=2")}


def gives_example(prompt: str, answer: str, ended: bool) -> bool:
    """Whether an answer ends, and has "For example," behind its first sentence."""
    return ended and any(part.startswith(STYLE) for part in sentences(answer)[1:])


def edited(drawn: list[Drawn]) -> list[PreferenceRecord]:
    """Of each prompt its first own answer of two sentences, and the same with our second one."""
    ours = {row.prompt: f"{STYLE} {row.chosen.split(f' {STYLE} ')[1]}" for row in read_jsonl(DATA)}
    pairs = []
    for row in drawn:
        own = [
            answer.text for answer in row.answers if is_two(row.prompt, answer.text, answer.ended)
        ]
        if own:
            first, _ = sentences(own[0])
            pairs.append(PreferenceRecord(row.prompt, f"{first} {ours[row.prompt]}", own[0]))
    return pairs


def run(work: Work) -> list[dict[str, Any]]:
    """All of it; a row an evaluation, and one for the pairs of each seed."""
    rows: list[dict[str, Any]] = []
    for rate in RATES:
        for seed in SEEDS if rate == RATES[0] else SEEDS[:1]:
            pairs = work.folder / f"edited-{seed}.jsonl"
            if not pairs.exists():
                write_jsonl(pairs, edited(read_drawn(work.draw(f"drawn-{seed}", seed))))
            if rate == RATES[0]:
                rows.append({"arm": "pairs", "seed": seed, "pairs": len(read_jsonl(pairs))})
            for arm, words in ARMS.items():
                setting = Setting(rate, BETA, STEPS)
                trained = work.train(f"{arm}-{rate:g}-{seed}", pairs, setting, seed, *words)
                shows = f"{MODULE}:gives_example"
                found = work.evaluate(trained, "held_out", EACH, seed, shows)
                rows.append(row_of(arm, seed, setting, found))
    return rows


def main() -> None:
    """Go on from what is in the folder."""
    work = work_from_arguments(__doc__, "one_sided", prompts())
    settings = {"rates": RATES, "beta": BETA, "steps": STEPS, "seeds": SEEDS, "asked": ASKED}
    settings |= {"each": EACH, "draws": DRAWS, "longest": LONGEST, "asks": IN_TWO.strip()}
    store("minimal_edits", settings, run(work))


if __name__ == "__main__":
    main()
