"""What can be typed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

# Named here so that the help page needs no torch; a test holds them against dpo_lib.losses.LOSSES.
LOSS_NAMES = (
    "dpo", "naive", "cdpo", "robust_dpo", "ipo", "ipo_per_token", "hinge", "odpo", "r_dpo",
    "length_normalized_dpo", "simpo", "orpo", "kto", "apo_zero", "apo_down", "bco", "nca", "sppo",
    "cal_dpo", "dpop", "forward_kl_dpo", "js_dpo", "alpha_dpo", "chi_po", "sft", "rpo", "mpo",
    "wpo",
)  # fmt: skip
FORMER_LOSS_NAMES = ("robust", "length_normalized", "reference_free")  # stored runs carry them
# What is chosen where nothing is typed; the help below and `RunSettings.completed` read it here.
LORA_RANK = 8
LEARNING_RATE = {"LoRA": 2e-4, "full": 5e-6, "tiny": 2e-4}
BATCH_SIZE = {"others": 8, "tiny": 32}
MOST_STEPS = 100
SPLITS = 5  # evaluations and checkpoints are a fifth of the run apart
EVAL_PAIRS = 64
LENGTH, DRAWN_LENGTH = 48, 128  # tokens of an answer that is shown, and of one to learn from
MODEL_HELP = (
    "smollm2 (needs no hub), tiny (the book's own model), a folder, or a name on the hub; "
    "the --out of an earlier run is a folder too"
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_lib",
        description="Direct Preference Optimization on your own preferences.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_train(commands.add_parser("train", help="train a model on a file of preferences"))
    _add_show(commands.add_parser("show", help="see pairs as the model will read them"))
    _add_eval(commands.add_parser("eval", help="score preferences with a trained model"))
    _add_sample(commands.add_parser("sample", help="let a model answer prompts"))
    _add_draw(commands.add_parser("draw", help="draw several answers to each prompt, into a file"))
    _add_judge(commands.add_parser("judge", help="make pairs of drawn answers by their scores"))
    _add_rounds(commands.add_parser("rounds", help="draw, judge and train, several times"))
    _add_compare(commands.add_parser("compare", help="answers before and after, side by side"))
    _add_label(commands.add_parser("label", help="choose between drawn answers, in a local page"))
    _add_merge(commands.add_parser("merge", help="put adapters into the weights of a plain folder"))
    demo = commands.add_parser("demo", help="a short run on the twelve pairs of the book")
    demo.add_argument("--steps", type=_at_least(1), default=30, help="updates (%(default)s)")
    demo.add_argument("--seed", type=_at_least(0), default=0, help="(%(default)s)")
    _add_loss(demo, "dpo")
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2", help=f"{MODEL_HELP} (%(default)s)")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the run is kept")
    _add_data(parser, required=True)
    data = parser.add_argument_group("which pairs are used")
    data.add_argument(
        "--held-out", type=_share, default=0.1, metavar="SHARE",
        help="share of the prompts kept for evaluation; 0: none (%(default)s)",
    )  # fmt: skip
    data.add_argument(
        "--eval-data", metavar="FILE", nargs="+",
        help="pairs to evaluate on; then all of --data is trained on",
    )  # fmt: skip
    data.add_argument(
        "--eval-pairs", type=_at_least(1), metavar="N",
        help="held-out pairs scored while training; then all are at the end "
        f"({EVAL_PAIRS}; fewer, at the end too, where that took over a fifth of the time)",
    )  # fmt: skip
    how = parser.add_argument_group("how it is trained")
    size = how.add_mutually_exclusive_group()
    size.add_argument(
        "--lora", type=_at_least(1), metavar="RANK",
        help=f"train adapters of this rank ({LORA_RANK}; of a model with adapters, theirs)",
    )  # fmt: skip
    size.add_argument("--full", action="store_true", help="train every weight")
    _add_loss(how, None)
    how.add_argument(
        "--option", action="append", type=_pair(float), default=[], metavar="NAME=VALUE",
        help="a setting of the loss, such as alpha=0.3; may be repeated",
    )  # fmt: skip
    how.add_argument("--beta", type=_above_0, help="(the loss's own; with tiny 1)")
    rates = ", ".join(f"{kind} {rate:g}" for kind, rate in LEARNING_RATE.items())
    how.add_argument(
        "--lr", type=_above_0,
        help=f"learning rate ({rates}: for small models; with billions of weights start with 5e-7 "
        "to 5e-6, with LoRA at ten times that)",
    )  # fmt: skip
    amount = how.add_mutually_exclusive_group()
    amount.add_argument(
        "--steps", type=_at_least(1),
        help=f"updates (one pass over the pairs, at most {MOST_STEPS})",
    )  # fmt: skip
    amount.add_argument(
        "--epochs", type=_above_0, metavar="N", help="passes over the pairs, instead of --steps"
    )
    how.add_argument(
        "--batch-size", type=_at_least(1),
        help=f"pairs an update ({BATCH_SIZE['others']}; tiny {BATCH_SIZE['tiny']}); of thumbs "
        "twice as many",
    )  # fmt: skip
    how.add_argument(
        "--accumulate", type=_at_least(1), default=1, metavar="PARTS",
        help="parts of a batch, one after the other: less memory (%(default)s)",
    )  # fmt: skip
    how.add_argument("--warmup", type=_at_least(0), default=0, help="updates (%(default)s)")
    how.add_argument(
        "--schedule", choices=("constant", "linear", "cosine"), default="constant",
        help="of the learning rate, after the warm-up (%(default)s)",
    )  # fmt: skip
    how.add_argument("--seed", type=_at_least(0), default=0, help="(%(default)s)")
    how.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)"
    )
    how.add_argument(
        "--force-dtype", action="store_true",
        help="compute in bfloat16 even where float32 is faster",
    )  # fmt: skip
    shown = parser.add_argument_group("what is kept and shown")
    shown.add_argument(
        "--eval-every", type=_at_least(1), metavar="N",
        help="updates between evaluations and checkpoints (a fifth of the steps; more where "
        "that took over a fifth of the time)",
    )  # fmt: skip
    shown.add_argument(
        "--samples", type=_at_least(0), default=6, metavar="N",
        help="prompts answered before and after (%(default)s)",
    )  # fmt: skip
    _add_length(shown)
    shown.add_argument(
        "--restart", action="store_true", help="drop what is in --out instead of going on"
    )
    shown.add_argument("--quiet", action="store_true", help="show no progress")
    shown.add_argument(
        "--log-with", metavar="TRACKER",
        help="also log to a tracker of Accelerate, such as tensorboard (files in --out)",
    )  # fmt: skip
    _add_threads(shown)

    parser.epilog = (
        "Reference log-probabilities are kept between runs, by model, tokens and dtype, in the "
        "user's cache directory (DPO_LIB_REFERENCES names another)."
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2", help=f"{MODEL_HELP} (%(default)s)")
    parser.add_argument("--rows", type=_at_least(0), default=2, help="pairs shown (%(default)s)")
    _add_data(parser, required=True)


def _add_eval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    parser.add_argument(
        "--reference", help="model that rewards are relative to (the one the run started from)"
    )
    parser.add_argument("--beta", type=_above_0, help="scale of the rewards (the run's, or 0.1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    _add_data(parser, required=False)
    _add_behavior(parser.add_argument_group("behavior, before and after"))


def _add_behavior(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--behavior", "--behaviour", metavar="MODULE:FUNCTION",
        help="instead of scoring pairs, let the model and its --reference answer prompts, and see "
        "in how many answers the function finds the behavior: a Python function, or "
        "file.py:function, true or false of a prompt and an answer; an argument called ended "
        "tells whether the answer was not cut",
    )  # fmt: skip
    group.add_argument(
        "--prompts", metavar="FILE",
        help="text, one prompt a line, or a data file's prompts (those that the run held out)",
    )  # fmt: skip
    group.add_argument(
        "--per-prompt", type=_at_least(1), default=4, metavar="N",
        help="answers drawn at temperature 1, beside a greedy one (%(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--judge", metavar="MODULE:FUNCTION",
        help="also tell how often it likes the model's answer better than the reference's: a "
        "function of a prompt and an answer (a number), or of a prompt and two answers (above 0 "
        "or true: the first is better), asked in both orders",
    )  # fmt: skip
    group.add_argument(
        "--timeout", type=_above_0, default=300.0, metavar="SECONDS",
        help="longest silence of a function before it is stopped (%(default)g)",
    )  # fmt: skip
    group.add_argument("--seed", type=_at_least(0), default=0, help="of the draws (%(default)s)")
    _add_length(group, DRAWN_LENGTH)
    group.add_argument(
        "--out", metavar="FILE", help="keep numbers and answers, as JSON; replaced if it is there"
    )


def _add_sample(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=MODEL_HELP)
    _add_prompts(parser)
    parser.add_argument("--n", type=_at_least(1), default=1, help="answers a prompt (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print a JSON object an answer")


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=f"after: {MODEL_HELP}")
    parser.add_argument("--before", help="model to compare with (the one the run started from)")
    _add_prompts(parser)
    parser.add_argument(
        "--width", type=_at_least(40), default=100, help="characters a line (%(default)s)"
    )


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw answers; a line a prompt. Interrupted, the same command goes on and ends with the "
        "same file, and with more prompts at the end of --prompts it appends theirs."
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines that are written")
    parser.add_argument(
        "--restart", action="store_true", help="drop what is in --out instead of going on"
    )
    _add_drawing(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="smollm2", help=f"{MODEL_HELP} (%(default)s)")
    parser.add_argument(
        "--per-prompt", type=_at_least(1), default=8, metavar="N",
        help="answers to each prompt (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    _add_threads(parser)
    _add_prompts(parser, temperature=1.0, length=DRAWN_LENGTH)


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.description = "Judge the answers of `draw` and write pairs that `train` reads."
    parser.add_argument("drawn", metavar="FILE", help="what `draw` wrote; it stays as it is")
    parser.add_argument("--out", required=True, metavar="FILE", help="pairs, as JSON lines")
    _add_judging(parser, scored=True)


def _add_judging(parser: argparse.ArgumentParser, scored: bool) -> None:
    who = parser.add_argument_group("who judges").add_mutually_exclusive_group(required=True)
    who.add_argument(
        "--judge", metavar="MODULE:FUNCTION",
        help="a Python function, or file.py:function: of a prompt and an answer a number, the "
        "higher the better; an argument called ended tells whether the answer was not cut",
    )  # fmt: skip
    who.add_argument(
        "--command", dest="shell", metavar="COMMAND",
        help="a shell command: gets a JSON object a line (prompt, answer, ended), prints a number "
        "a line",
    )  # fmt: skip
    if scored:
        who.add_argument(
            "--scores", metavar="FIELD",
            help="a field of each answer, or a list beside the answers: the higher the better, of "
            "ranks the lower",
        )  # fmt: skip
    pairs = parser.add_argument_group("pairs")
    pairs.add_argument(
        "--timeout", type=_above_0, default=300.0, metavar="SECONDS",
        help="longest silence of a judge before it is stopped (%(default)g)",
    )  # fmt: skip
    pairs.add_argument(
        "--pairs", choices=("best-worst", "all"), default="best-worst",
        help="of each prompt the best answer against the worst, or every two answers that "
        "differ in score (%(default)s)",
    )  # fmt: skip
    pairs.add_argument(
        "--match-length", action="store_true",
        help="best-worst: of the pairs that differ in score the one whose lengths are nearest; "
        "all: each answer once at most, beside the nearest; of the equally near what brings both "
        "sides to one mean length",
    )  # fmt: skip


def _add_rounds(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draw, judge and train, again and again, each time on the answers of the model as it is "
        "by then. Options of `train` stand behind a -- at the end. Interrupted, the same command "
        "goes on where it stopped."
    )
    parser.add_argument(
        "--rounds", type=_at_least(1), default=2, metavar="N", help="how often (%(default)s)"
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER",
        help="gets drawn-1.jsonl, pairs-1.jsonl and the run 1, and so on",
    )  # fmt: skip
    _add_drawing(parser)
    _add_judging(parser, scored=False)
    parser.add_argument(
        "train", nargs="*", metavar="-- OPTIONS OF TRAIN", help="such as -- --lr 1e-4 --epochs 2"
    )


def _add_label(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "drawn", metavar="FILE", help="a prompt and its answers a row, as `draw` writes them"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE",
        help="the pairs that you decide, for `train`; the same command goes on where you stopped",
    )  # fmt: skip
    _add_encoding(parser)
    asked = parser.add_argument_group("what is asked")
    asked.add_argument(
        "--per-prompt", type=_at_least(1), default=1, metavar="N",
        help="pairs of a prompt, drawn at random among its answers that differ (%(default)s)",
    )  # fmt: skip
    asked.add_argument(
        "--repeats", type=_share, default=0.1, metavar="SHARE",
        help="share of the pairs that is asked again later, with the sides swapped, to see how "
        "far you agree with yourself (%(default)s)",
    )  # fmt: skip
    asked.add_argument(
        "--seed", type=_at_least(0), default=0, help="of the pairs, sides and order (%(default)s)"
    )
    page = parser.add_argument_group("the page")
    page.add_argument("--port", type=_port, default=0, help="of this machine (a free one)")
    page.add_argument("--no-browser", action="store_true", help="only print the address")


def _add_merge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="the --out of a run that trained adapters, or their folder"
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="where it is written; new, or empty"
    )


def _add_data(parser: argparse.ArgumentParser, required: bool) -> None:
    group = parser.add_argument_group("preferences")
    group.add_argument(
        "--data", required=required, metavar="FILE", nargs="+",
        help="JSON lines, JSON, Parquet, CSV or TSV, also gzipped, or folders of them: prompt, "
        "chosen and rejected as text or messages, Alpaca's, ShareGPT's or OpenAI's columns, "
        "transcripts; or thumbs: prompt, completion and a label (true or false)"
        + ("" if required else " (the pairs that the run held out)"),
    )  # fmt: skip
    group.add_argument(
        "--map", action="append", type=_pair(str), default=[], metavar="THEIRS=OURS",
        help="use a column under another name, such as instruction=prompt; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--score", metavar="COLUMN",
        help="scores of the responses: the best is taken against the worst",
    )  # fmt: skip
    group.add_argument(
        "--label", type=_pair(str), metavar="COLUMN=VALUE",
        help="where the column has this value, chosen is better as it stands; elsewhere rejected",
    )  # fmt: skip
    group.add_argument("--system", metavar="TEXT", help="system text of prompts that have none")
    _add_encoding(group)
    group.add_argument(
        "--skip-bad", action="store_true",
        help="leave out bad rows and say how many, instead of stopping",
    )  # fmt: skip
    group.add_argument(
        "--max-length", type=_at_least(2), metavar="TOKENS",
        help="longest prompt with a response; longer pairs are bad rows, nothing is cut "
        "(512, or what the model can read)",
    )  # fmt: skip
    group.add_argument(
        "--plain", action="store_true", help="prompts are text to continue: no chat template"
    )
    group.add_argument(
        "--control-tokens", action="store_true",
        help="read strings such as <|im_end|> in the data as control tokens (they stay text)",
    )  # fmt: skip
    group.add_argument(
        "--answer-prefix", default="", metavar="TEXT",
        help="put before every answer and scored with it, such as an empty think block",
    )  # fmt: skip
    group.add_argument(
        "--template", action="append", type=_variable, default=[], metavar="NAME=VALUE",
        help="a variable of the chat template, such as enable_thinking=false; may be repeated",
    )  # fmt: skip


def _add_encoding(group: argparse._ActionsContainer) -> None:
    group.add_argument("--encoding", metavar="NAME", help="of text files, such as cp1252 (utf-8)")


def _add_prompts(
    parser: argparse.ArgumentParser, temperature: float = 0.0, length: int = LENGTH
) -> None:
    group = parser.add_argument_group("prompts")
    group.add_argument("--prompt", action="append", default=[], help="may be repeated")
    group.add_argument(
        "--prompts", metavar="FILE",
        help="text, one prompt a line, or a data file's prompts (without: some held-out ones)",
    )  # fmt: skip
    group.add_argument("--system", metavar="TEXT", help="system text of prompts that have none")
    _add_encoding(group)
    group.add_argument("--plain", action="store_true", help="no chat template")
    how = parser.add_argument_group("sampling")
    how.add_argument(
        "--temperature", type=float, default=temperature,
        help="0: the likeliest token (%(default)s)",
    )  # fmt: skip
    how.add_argument("--seed", type=_at_least(0), default=0, help="(%(default)s)")
    _add_length(how, length)


def _add_loss(group: argparse._ActionsContainer, default: str | None) -> None:
    usual = default or "dpo; with --full rpo"
    group.add_argument(
        "--loss", metavar="NAME", default=default, choices=(*LOSS_NAMES, *FORMER_LOSS_NAMES),
        help=f"({usual}) one of {', '.join(LOSS_NAMES)}; thumbs take kto",
    )  # fmt: skip


def _add_threads(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--threads", type=_at_least(1), metavar="N",
        help="of torch on the processor (its own choice, or OMP_NUM_THREADS; fewer where other "
        "programs keep the processor busy)",
    )  # fmt: skip


def _add_length(group: argparse._ArgumentGroup, length: int = LENGTH) -> None:
    group.add_argument(
        "--max-new-tokens", type=_at_least(1), default=length, metavar="N",
        help="where an answer is cut if it has not ended (%(default)s)",
    )  # fmt: skip


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return integer


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"must be between 0 and 65535, got {value}")
    return value


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0 and finite, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {text}")
    return value


def _variable(text: str) -> tuple[str, object]:
    name, value = _pair(str)(text)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _pair(kind: type) -> Callable[[str], tuple[str, object]]:
    def pair(text: str) -> tuple[str, object]:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"must have the form a=b, got {text!r}")
        return name, kind(value)

    return pair
