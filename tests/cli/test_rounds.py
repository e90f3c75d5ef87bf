"""``rounds``: each round draws from, judges and trains what the one before has left."""

import json

import pytest

from dpo_lib.cli import main
from dpo_lib.cli import rounds as command
from tests.models.hf import make_folder

pytestmark = pytest.mark.usefixtures("no_network")
RULE = "def vowels(prompt, answer):\n    return sum(c in 'aeiou' for c in answer)\n"
TRAIN = ["--lora", "4", "--steps", "3", "--batch-size", "4", "--lr", "1e-2", "--held-out", "0"]
TRAIN += ["--samples", "1", "--max-new-tokens", "3"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    path = tmp_path_factory.mktemp("rounds")
    make_folder(path / "llama")
    (path / "rule.py").write_text(RULE)
    (path / "prompts.txt").write_text("".join(f"{i}?\n" for i in range(6)))
    return path


def rounds(work, out, *more, train=TRAIN):
    words = ["rounds", "--model", str(work / "llama"), "--prompts", str(work / "prompts.txt")]
    words += ["--judge", f"{work / 'rule.py'}:vowels", "--out", str(work / out)]
    return main([*words, "--per-prompt", "6", "--max-new-tokens", "12", *more, "--", *train])


@pytest.fixture(scope="module")
def whole(work):
    assert rounds(work, "whole") == 0
    return work / "whole"


def read(path):
    return json.loads(path.read_text())


def files(out):
    """What must be the same however the rounds were interrupted."""
    names = [f"{kind}-{i}.jsonl" for kind in ("drawn", "pairs") for i in (1, 2)]
    weights = [f"{i}/model/adapter_model.safetensors" for i in (1, 2)]
    return {name: (out / name).read_bytes() for name in (*names, *weights)}


def test_each_round_begins_where_the_last_one_ended(whole, work):
    first, second = (read(whole / f"drawn-{i}.jsonl.settings") for i in (1, 2))
    assert (first["model"], second["model"]) == (str(work / "llama"), str(whole / "1"))
    assert (first["seed"], second["seed"]) == (0, 1)
    settings = [read(whole / str(i) / "run.json")["settings"] for i in (1, 2)]
    assert [s["model"] for s in settings] == [str(work / "llama"), str(whole / "1")]
    assert [(s["lora"], s["steps"]) for s in settings] == [(4, 3), (4, 3)]
    pairs = [json.loads(line) for line in (whole / "pairs-2.jsonl").read_text().splitlines()]
    drawn = [json.loads(line) for line in (whole / "drawn-2.jsonl").read_text().splitlines()]
    texts = {a["text"] for row in drawn for a in row["answers"]}
    assert all({p["chosen"], p["rejected"]} <= texts for p in pairs)
    assert all(p["chosen_score"] > p["rejected_score"] for p in pairs)


@pytest.mark.parametrize("place", ["run_draw", "write_pairs", "run_train"])
def test_interrupted_they_end_the_same(whole, work, monkeypatch, capsys, place):
    original, calls = getattr(command, place), []

    def stop(args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(args)

    monkeypatch.setattr(command, place, stop)
    assert rounds(work, place) == 130
    assert "interrupted: the same command goes on" in capsys.readouterr().err
    assert rounds(work, place) == 0
    assert files(work / place) == files(whole)


def test_more_rounds_go_on_from_there(whole, work, monkeypatch):
    before = files(whole)
    assert rounds(work, "whole", "--rounds", "3", "--quiet") == 0
    assert files(whole) == before
    assert read(whole / "3" / "run.json")["settings"]["model"] == str(whole / "2")


@pytest.mark.parametrize(
    ("words", "train", "message"),
    [
        (["--seed", "3"], TRAIN, "holds other rounds (seed was 0, is 3)"),
        (["--match-length"], TRAIN, "match_length was False, is True"),
        ([], [*TRAIN, "--beta", "1"], "holds other rounds (train was"),
        ([], ["--data", "x"], "--data is not for the options of train"),
        ([], ["--mod=x"], "--mod is not for the options of train"),
        ([], ["--out=x"], "--out is not for the options of train"),
        ([], ["--restart"], "--restart is not for the options of train"),
        ([], ["--quiet"], "--quiet is not for the options of train"),
    ],
)
def test_other_rounds_are_refused_in_one_sentence(whole, work, capsys, words, train, message):
    assert rounds(work, "whole", *words, train=train) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_each_round_says_where_it_begins_and_the_last_one_where_its_model_is(
    tmp_path, monkeypatch, capsys
):
    """Also with another patience and other threads: they decide no round."""
    for name in ("run_draw", "write_pairs", "run_train"):
        monkeypatch.setattr(command, name, lambda args: None)
    out = tmp_path / "out"
    words = ["rounds", "--model", "mine", "--prompt", "a", "--command", "x", "--out", str(out)]
    for more in ([], ["--threads", "1", "--timeout", "5", "--quiet"]):
        assert main([*words, "--rounds", "2", *more]) == 0
        told, said = capsys.readouterr()
        assert told == f"model  {out / '2' / 'model'}\n"
        if not more:
            assert said == f"round  1 of 2, from mine\nround  2 of 2, from {out / '1'}\n"


def test_what_cannot_be_done_is_said_before_anything_is_drawn(work, tmp_path, capsys):
    words = ["rounds", "--model", str(work / "llama"), "--out", str(tmp_path / "new")]
    words += ["--judge", f"{work / 'rule.py'}:vowels"]
    assert main(words) == 2
    assert "--prompts is needed" in capsys.readouterr().err
    words += ["--prompts", str(work / "prompts.txt")]
    with pytest.raises(SystemExit):
        main([*words, "--", "--no-such-option"])
    words[words.index("--judge") + 1] = "nothing_there:judge"
    assert main(words) == 2
    assert "nothing_there cannot be loaded" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
