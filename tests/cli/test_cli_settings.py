"""Every option reaches the run, and the help says what is chosen where nothing is typed."""

import dataclasses
import inspect
import math
import re
from pathlib import Path

import pytest

from dpo_lib.cli import parser as typed
from dpo_lib.cli.data import DataSettings
from dpo_lib.cli.held_out import LEAST, plan
from dpo_lib.cli.settings import RunSettings
from dpo_lib.losses import LOSSES

CLI = Path(typed.__file__).parent
NEEDED = ["train", "--data", "file", "--out", "folder"]


def options():
    """The options of ``train`` as argparse has them."""
    (commands,) = [a for a in typed.make_parser()._actions if a.dest == "command"]
    return [a for a in commands.choices["train"]._actions if a.dest != "help"]


def settings(*more):
    return RunSettings.typed(typed.make_parser().parse_args([*NEEDED, *more]))


def example(action):
    """A value that is not the default: what is typed, and what arrives."""
    if action.nargs == 0:
        return [], True
    if action.choices:
        choice = next(c for c in action.choices if c not in ("dpo", action.default))
        return [choice], choice
    for text in ("0.37", "7", "a=b", "a=0.5", "text"):
        try:
            value = action.type(text) if action.type else text
        except Exception:
            continue
        many = isinstance(action.default, list) or action.nargs == "+"
        return [text], (value,) if many else value
    raise AssertionError(action)


@pytest.mark.parametrize("action", options(), ids=lambda action: action.dest)
def test_every_option_reaches_the_settings(action):
    words, value = example(action)
    found = getattr(settings(action.option_strings[0], *words), action.dest)
    assert found == value
    if action.dest not in ("data", "out"):
        assert found != getattr(settings(), action.dest)


def test_every_setting_is_an_option():
    assert {f.name for f in dataclasses.fields(RunSettings)} == {a.dest for a in options()}


def test_settings_reach_the_configuration():
    names = {"lr": "learning_rate", "warmup": "warmup_steps"}
    default = settings().completed(False, 100).config()
    for action in options():
        name = names.get(action.dest, action.dest)
        if not hasattr(default, name):
            continue
        words, value = example(action)
        if action.dest == "accumulate":
            words = value = "2"
            value = 2
        found = settings(action.option_strings[0], *words).completed(False, 100).config()
        assert getattr(found, name) == value != getattr(default, name)


def test_what_decides_the_numbers_is_the_identity_of_a_run():
    free = {"out", "data", "eval_data", "epochs", "samples", "max_new_tokens", "threads"}
    free |= {"log_with", "force_dtype", "restart", "quiet"}
    known = {f.name for f in dataclasses.fields(RunSettings)}
    assert {*settings().identity()} == known - free


@pytest.mark.parametrize("command", ["draw", "judge", "rounds", "label", "eval"])
def test_every_option_of_the_models_own_answers_is_read(command):
    (commands,) = [a for a in typed.make_parser()._actions if a.dest == "command"]
    sources = "".join(p.read_text("utf-8") for p in CLI.glob("*.py") if p.name != "parser.py")
    known = {"help", *(f.name for f in dataclasses.fields(DataSettings))}
    for name in {action.dest for action in commands.choices[command]._actions} - known:
        assert re.search(rf"\bargs\.{name}\b|[\"']{name}[\"']", sources), name


def test_what_is_chosen_where_nothing_is_typed():
    parse = typed.make_parser().parse_args
    drawn = parse(["draw", "--out", "x"])
    assert (drawn.model, drawn.per_prompt, drawn.temperature) == ("smollm2", 8, 1.0)
    seen = parse(["eval", "--model", "x", "--behaviour", "a:b"])
    assert (seen.behavior, seen.per_prompt) == ("a:b", 4)
    assert seen.max_new_tokens == drawn.max_new_tokens == typed.DRAWN_LENGTH
    assert parse(["sample", "--model", "x"]).temperature == 0
    judged = parse(["judge", "x", "--out", "y", "--scores", "z"])
    assert (judged.pairs, judged.match_length, judged.timeout) == ("best-worst", False, 300)
    asked = parse(["label", "x", "--out", "y"])
    assert (asked.per_prompt, asked.repeats, asked.seed, asked.port) == (1, 0.1, 0, 0)
    with pytest.raises(SystemExit):
        parse(["judge", "x", "--out", "y"])


# --- defaults ------------------------------------------------------------------------------------

KINDS = {"LoRA": (False, []), "full": (False, ["--full"]), "tiny": (True, [])}


def chosen(kind, pairs=1000):
    tiny, words = KINDS[kind]
    return settings(*words).completed(tiny, pairs)


def said(name):
    (action,) = [a for a in options() if a.dest == name]
    values = {"default": action.default}
    return re.findall(r"\(([^()]*)\)", action.help % values)[-1]


def test_the_help_tells_the_defaults_that_are_plain():
    for action in options():
        if "%(default)s" in (action.help or ""):
            default = getattr(RunSettings(out="", data=("",)), action.dest)
            assert said(action.dest) == str(default) == str(action.default)
            assert getattr(chosen("LoRA"), action.dest) == default


def test_the_help_tells_the_defaults_that_depend_on_the_model():
    rates = dict(part.rsplit(" ", 1) for part in said("lr").split(": ")[0].split(", "))
    assert {kind: float(rate) for kind, rate in rates.items()} == {
        kind: chosen(kind).lr for kind in KINDS
    }
    usual, tiny = said("batch_size").split("; tiny ")
    assert int(usual) == chosen("LoRA").batch_size == chosen("full").batch_size
    assert int(tiny) == chosen("tiny").batch_size
    assert said("lora").startswith(f"{chosen('LoRA').lora};")
    assert "of a model with adapters, theirs" in said("lora")
    assert settings().completed(False, 10, adapter=3).lora == 3
    (batch_size,) = [a.help for a in options() if a.dest == "batch_size"]
    assert batch_size.endswith("; of thumbs twice as many")
    for small, number in ((False, usual), (True, tiny)):
        thumbs = settings().completed(small, 1000, unpaired=True)
        assert thumbs.batch_size == 2 * int(number)
    (loss,) = [a.help for a in options() if a.dest == "loss"]
    assert re.match(r"\((.*?)\)", loss)[1].split("; with --full ") == [
        chosen("LoRA").loss,
        chosen("full").loss,
    ]
    assert chosen("tiny").loss == "dpo"
    assert said("beta") == "the loss's own; with tiny 1"
    assert chosen("tiny").beta == 1.0
    for loss in LOSSES:
        own = inspect.signature(LOSSES[loss]).parameters["beta"].default
        assert settings("--loss", loss).completed(False, 9).beta == own


def test_the_help_tells_how_many_updates():
    most = int(re.fullmatch(r"one pass over the pairs, at most (\d+)", said("steps"))[1])
    assert chosen("LoRA", 400).steps == 400 // 8
    assert chosen("LoRA", 3).steps == 1
    assert chosen("LoRA", 100_000).steps == most
    assert settings("--epochs", "3").completed(False, 100).steps == 38  # 37.5 are too few
    assert settings("--epochs", "2.97").completed(False, 100).steps == 38  # so are 37.1
    assert settings("--epochs", "0.5").completed(False, 160).steps == 10
    assert settings("--epochs", "0.01").completed(False, 100).steps == 1
    assert said("eval_every").startswith("a fifth of the steps")
    assert settings("--steps", "50").completed(False, 9).eval_every == 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "3", "--epochs", "1"], "not allowed with argument --steps"),
        (["--epochs", "0"], "must be above 0"),
        (["--threads", "0"], "must be at least 1"),
    ],
)
def test_what_excludes_each_other(words, message, capsys):
    with pytest.raises(SystemExit):
        settings(*words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"held_out": 1.0}, r"held_out must be in \[0, 1\), got 1.0"),
        ({"held_out": -0.1}, r"held_out must be in \[0, 1\), got -0.1"),
        ({"full": True, "lora": 8}, "full and lora exclude each other"),
        ({"loss": "no"}, "'no'"),
        ({"beta": 0.0}, "beta must be above 0 and finite, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_settings(values, message):
    with pytest.raises(ValueError, match=message):
        RunSettings(out="a", data=("b",), **values)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("steps", 1), ("batch_size", 1), ("eval_every", 1), ("eval_pairs", 1), ("lora", 1),
        ("threads", 1), ("max_length", 2), ("max_new_tokens", 1), ("samples", 0), ("seed", 0),
    ],
)  # fmt: skip
def test_the_least_of_a_setting(name, least):
    assert getattr(RunSettings(out="a", data=("b",), **{name: least}), name) == least
    assert RunSettings(out="a", data=("b",), held_out=0.0).held_out == 0  # none is held out
    message = f"^{name} must be at least {least}, got {least - 1}$"
    with pytest.raises(ValueError, match=message):
        RunSettings(out="a", data=("b",), **{name: least - 1})


@pytest.mark.parametrize("name", ["beta", "lr", "epochs"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_is_positive_and_finite(name, value):
    RunSettings(out="a", data=("b",), **{name: 1e-9})
    with pytest.raises(ValueError, match=f"^{name} must be above 0 and finite, got {value}$"):
        RunSettings(out="a", data=("b",), **{name: value})


def test_adapters_that_the_model_has_are_trained_further():
    with_adapters = settings("--model", "mine", "--lora", "4")
    assert with_adapters.completed(False, 10, adapter=4).lora == 4
    with pytest.raises(ValueError, match=r"^--lora 4: mine has adapters of rank 3, which are tr"):
        with_adapters.completed(False, 10, adapter=3)
    with pytest.raises(ValueError, match=r"^--lora is for models of transformers; tiny"):
        with_adapters.completed(True, 10)
    full = settings("--full").completed(False, 10, adapter=3)
    assert (full.lora, full.full) == (None, True)
    assert not settings().completed(False, 10).full
    assert settings().completed(True, 10).full


def test_what_is_typed_goes_before_what_is_usual():
    words = ("--beta", "0.3", "--lr", "0.2", "--batch-size", "5", "--steps", "9", "--loss", "ipo")
    found = settings(*words, "--eval-every", "4").completed(True, 1000, unpaired=True)
    assert (found.beta, found.lr, found.batch_size, found.steps) == (0.3, 0.2, 5, 9)
    assert (found.loss, found.eval_every) == ("ipo", 4)
    assert settings().completed(True, 1000, unpaired=True).loss == "kto"
    assert settings("--loss", "simpo").completed(True, 9).beta == 2.0  # its own, not tiny's
    assert settings("--full").completed(False, 9, unpaired=True).loss == "kto"


def test_the_identity_has_the_values_of_the_settings():
    found = settings("--option", "a=0.5", "--seed", "3").identity()
    assert (found["option"], found["seed"], found["loss"]) == ([["a", 0.5]], 3, None)


def test_settings_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings().steps = 3


# --- how much is evaluated -----------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 20, 100, 1000])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("held_out", [1, 12, 110, 10_000])
@pytest.mark.parametrize("longer", [0.5, 1.0, 3.0])
def test_evaluation_takes_at_most_a_fifth_of_the_work(steps, batch_size, held_out, longer):
    final, first, every = plan(steps, batch_size, True, longer, held_out)
    assert 1 <= first <= final <= held_out
    assert first <= 64 or first == final
    assert 1 <= every <= steps
    rounds = len(range(every, steps, every))
    scored = 2 * final + rounds * first + (first if first < final else 0)
    training = 2 * steps * batch_size
    least = min(held_out, LEAST)
    if final > least or rounds:
        assert scored * longer / (training + scored * longer) <= 0.2 + 1e-9
    else:  # as little as says anything
        assert final == least


def test_where_there_is_time_everything_is_evaluated():
    assert plan(1000, 32, True, 1.0, 110) == (110, 64, 200)
    assert plan(4, 4, True, 1.0, 110) == (16, 16, 4)


def test_the_time_for_evaluation_is_used():
    assert plan(100, 8, False, 1.0, 1000) == (240, 24, 20)  # of 600 units; 120 in five rounds
    assert plan(100, 8, True, 1.0, 1000) == (160, 16, 20)  # of 400
    assert plan(100, 8, True, 2.0, 1000) == (80, 80, 100)  # of 200: 8 pairs a round say nothing
