"""What can be typed, what is refused, and what ``--help`` tells of it."""

import re

import pytest

from dpo_lib.cli import _COMMANDS
from dpo_lib.cli.parser import make_parser
from dpo_lib.cli.settings import RunSettings

TEXTS = "[--map THEIRS=OURS] [--score COLUMN] [--label COLUMN=VALUE] [--system TEXT] "
TEXTS += "[--encoding NAME] [--skip-bad] [--max-length TOKENS] [--plain] [--control-tokens] "
TEXTS += "[--answer-prefix TEXT] [--template NAME=VALUE]"
SAMPLING = "[--prompt PROMPT] [--prompts FILE] [--system TEXT] [--encoding NAME] [--plain] "
SAMPLING += "[--temperature TEMPERATURE] [--seed SEED] [--max-new-tokens N]"
DRAWING = f"[--model MODEL] [--per-prompt N] [--quiet] [--threads N] {SAMPLING}"
JUDGES = "--judge MODULE:FUNCTION | --command COMMAND"
PAIRS = "[--timeout SECONDS] [--pairs {best-worst,all}] [--match-length]"
USAGE = {
    "train": f"[--model MODEL] --out FOLDER --data FILE [FILE ...] {TEXTS} [--held-out SHARE] "
    "[--eval-data FILE [FILE ...]] [--eval-pairs N] [--lora RANK | --full] [--loss NAME] "
    "[--option NAME=VALUE] [--beta BETA] [--lr LR] [--steps STEPS | --epochs N] "
    "[--batch-size BATCH_SIZE] [--accumulate PARTS] [--warmup WARMUP] "
    "[--schedule {constant,linear,cosine}] [--seed SEED] [--dtype {float32,bfloat16}] "
    "[--force-dtype] [--eval-every N] [--samples N] [--max-new-tokens N] [--restart] [--quiet] "
    "[--log-with TRACKER] [--threads N]",
    "show": f"[--model MODEL] [--rows ROWS] --data FILE [FILE ...] {TEXTS}",
    "eval": "--model MODEL [--reference REFERENCE] [--beta BETA] [--json] "
    f"[--data FILE [FILE ...]] {TEXTS} [--behavior MODULE:FUNCTION] [--prompts FILE] "
    "[--per-prompt N] [--judge MODULE:FUNCTION] [--timeout SECONDS] [--seed SEED] "
    "[--max-new-tokens N] [--out FILE]",
    "sample": f"--model MODEL {SAMPLING} [--n N] [--json]",
    "draw": f"--out FILE [--restart] {DRAWING}",
    "judge": f"--out FILE ({JUDGES} | --scores FIELD) {PAIRS} FILE",
    "rounds": f"[--rounds N] --out FOLDER {DRAWING} ({JUDGES}) {PAIRS} [-- OPTIONS OF TRAIN ...]",
    "compare": f"--model MODEL [--before BEFORE] {SAMPLING} [--width WIDTH]",
    "label": "--out FILE [--encoding NAME] [--per-prompt N] [--repeats SHARE] [--seed SEED] "
    "[--port PORT] [--no-browser] FILE",
    "merge": "--model MODEL --out FOLDER",
    "demo": "[--steps STEPS] [--seed SEED] [--loss NAME]",
}
NEEDED = {
    "train": "--out a --data b", "show": "--data b", "eval": "--model a", "sample": "--model a",
    "compare": "--model a", "draw": "--out a", "judge": "a --out b --scores c",
    "rounds": "--out a --judge b", "label": "a --out b", "merge": "--model a --out b", "demo": "",
}  # fmt: skip
TEXTS_UNTYPED = {
    "map": [], "score": None, "label": None, "system": None, "encoding": None, "skip_bad": False,
    "max_length": None, "plain": False, "control_tokens": False, "answer_prefix": "",
    "template": [],
}  # fmt: skip
SAMPLING_UNTYPED = {
    "prompt": [], "prompts": None, "system": None, "encoding": None, "plain": False,
    "temperature": 0.0, "seed": 0, "max_new_tokens": 48,
}  # fmt: skip
DRAWING_UNTYPED = {
    **SAMPLING_UNTYPED, "model": "smollm2", "per_prompt": 8, "quiet": False, "threads": None,
    "temperature": 1.0, "max_new_tokens": 128,
}  # fmt: skip
PAIRS_UNTYPED = {
    "judge": None, "shell": None, "timeout": 300.0, "pairs": "best-worst", "match_length": False,
}  # fmt: skip
UNTYPED = {
    "show": {**TEXTS_UNTYPED, "data": ["b"], "model": "smollm2", "rows": 2},
    "eval": {
        **TEXTS_UNTYPED, "model": "a", "reference": None, "beta": None, "json": False,
        "data": None, "behavior": None, "prompts": None, "per_prompt": 4, "judge": None,
        "timeout": 300.0, "seed": 0, "max_new_tokens": 128, "out": None,
    },
    "sample": {**SAMPLING_UNTYPED, "model": "a", "n": 1, "json": False},
    "compare": {**SAMPLING_UNTYPED, "model": "a", "before": None, "width": 100},
    "draw": {**DRAWING_UNTYPED, "out": "a", "restart": False},
    "judge": {**PAIRS_UNTYPED, "drawn": "a", "out": "b", "scores": "c"},
    "rounds": {
        **DRAWING_UNTYPED, **PAIRS_UNTYPED, "out": "a", "judge": "b", "rounds": 2, "train": [],
    },
    "label": {
        "drawn": "a", "out": "b", "encoding": None, "per_prompt": 1, "repeats": 0.1, "seed": 0,
        "port": 0, "no_browser": False,
    },
    "merge": {"model": "a", "out": "b"},
    "demo": {"steps": 30, "seed": 0, "loss": "dpo"},
}  # fmt: skip
ONES = ("lora", "steps", "batch_size", "accumulate", "eval_every", "eval_pairs", "threads")
ONES += ("max_new_tokens", "per_prompt", "n", "rounds")
LEAST = {
    **dict.fromkeys(("warmup", "seed", "samples", "rows"), 0), **dict.fromkeys(ONES, 1),
    "max_length": 2, "width": 40,
}  # fmt: skip
RATES = {"beta", "lr", "epochs", "timeout"}
SHARES = {"held_out", "repeats"}
# How names are spelled; all else in a help text is of small letters.
NAMES = "JSON CSV TSV Parquet Alpaca ShareGPT OpenAI Python LoRA Accelerate OMP_NUM_THREADS "
NAMES += "DPO_LIB_REFERENCES Direct Preference Optimization"
SPELLED = {name.lower(): name for name in NAMES.split()}


def commands_of(parser):
    """The commands, as they are listed in the help."""
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    return commands


def options(parser, command):
    """What a command takes, each as it is typed and as argparse has it."""
    actions = commands_of(parser).choices[command]._actions
    return [(action.option_strings[:1], action) for action in actions if action.dest != "help"]


def badly_spelled(text):
    """Words with a capital that is of no name, or of a name without its own."""
    return [w for w in re.findall(r"\w+", text) if w != SPELLED.get(w.lower(), w.lower())]


# --- what can be typed ---------------------------------------------------------------------------


def test_the_usage_of_every_command(capsys):
    parser = make_parser()
    with pytest.raises(SystemExit):
        parser.parse_args([])
    assert "the following arguments are required: command\n" in capsys.readouterr().err
    usage = " ".join(parser.format_usage().split())
    assert usage == "usage: python -m dpo_lib [-h] command ..."
    commands = commands_of(parser).choices
    assert {*commands} == {*USAGE} == {*_COMMANDS}
    for name, expected in USAGE.items():
        usage = " ".join(commands[name].format_usage().split())
        assert usage == f"usage: python -m dpo_lib {name} [-h] {expected}"


def test_what_is_chosen_where_nothing_is_typed():
    parser = make_parser()
    for command, needed in NEEDED.items():
        args = parser.parse_args([command, *needed.split()])
        if command == "train":
            assert RunSettings.typed(args) == RunSettings(out="a", data=("b",))
        else:
            assert vars(args) == {"command": command, **UNTYPED[command]}


def cases(action):
    """What an option takes, with what arrives, and what it refuses, with what it says."""
    name = action.dest
    if name in LEAST:
        least = LEAST[name]
        refused = dict.fromkeys(("a", "100.5"), "invalid integer value: ")
        refused[str(least - 1)] = f"must be at least {least}, got {least - 1}\n"
        return {str(least): least, "7000": 7000}, refused
    if name == "port":
        message = "must be between 0 and 65535, got "
        return {"0": 0, "65535": 65535}, {t: f"{message}{t}\n" for t in ("-1", "65536")}
    if name in RATES:
        refused = {t: f"must be above 0 and finite, got {t}\n" for t in ("0", "-1", "inf", "nan")}
        return {"1e-9": 1e-9, "7000": 7000}, refused
    if name in SHARES:
        message = "must be at least 0 and below 1, got "
        return {"0": 0, "0.999": 0.999}, {t: f"{message}{t}\n" for t in ("-0.001", "1", "nan")}
    if "=" in (action.metavar or ""):
        taken = {"a=7": ("a", 7 if name in ("option", "template") else "7")}
        if name != "option":
            taken["a=b=c"] = ("a", "b=c")
        return taken, {t: f"must have the form a=b, got {t!r}\n" for t in ("a", "a=", "=a")}
    if name == "temperature":  # its range is looked at where it is used
        return {"0.5": 0.5}, {"a": "invalid float value: "}
    assert action.type is None
    if action.choices or name == "loss":
        return {choice: choice for choice in action.choices or ()}, {"no": "invalid choice: 'no' "}
    return {"a": "a"} if name == "prompt" else {}, {}


@pytest.mark.parametrize("command", USAGE)
def test_what_an_option_takes_and_what_it_refuses(command, capsys):
    parser, known = make_parser(), [command, *NEEDED[command].split()]
    for option, action in options(parser, command):
        taken, refused = cases(action)
        repeated = "may be repeated" in action.help
        for text, value in taken.items():
            words = [*option, text] * (1 + repeated)
            found = getattr(parser.parse_args([*known, *words]), action.dest)
            assert found == ([value] * 2 if repeated else value)
        for text, message in refused.items():
            with pytest.raises(SystemExit):
                parser.parse_args([*known, *option, text])
            assert f"error: argument {option[0]}: {message}" in capsys.readouterr().err


# --- what the help tells -------------------------------------------------------------------------


@pytest.mark.parametrize("command", USAGE)
def test_every_option_is_explained_with_its_default(command):
    parser = make_parser()
    formatter = commands_of(parser).choices[command]._get_formatter()
    for _, action in options(parser, command):
        text = formatter._expand_help(action)
        assert badly_spelled(text) == []
        assert text.strip(" .;:,") == text != ""
        if action.dest != "port" and action.default not in (None, False, "", []):  # a free one
            default = action.default
            shown = f"{default:g}" if action.dest == "timeout" else str(default)
            assert f"({shown})" in text
        if action.dest == "data":
            assert text.endswith(" (the pairs that the run held out)") is not action.required


def test_the_help_is_spelled_alike():
    """Titles and lists have no capitals, and sentences one each."""
    parser = make_parser()
    commands = commands_of(parser)
    for told in commands._choices_actions:
        assert badly_spelled(told.help) == []
    assert [told.dest for told in commands._choices_actions] == [*commands.choices]
    texts = [parser.description]
    for command in commands.choices.values():
        for group in command._action_groups:
            assert badly_spelled(group.title) == []
        texts += [text for text in (command.description, command.epilog) if text]
    assert len(texts) == 5  # of all commands; draw, judge, rounds and train
    for text in texts:
        assert text.endswith(".")
        for sentence in text.split(". "):
            assert sentence[0].isupper()
            assert badly_spelled(sentence[1:]) == []
