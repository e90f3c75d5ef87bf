"""Chapter 10 promises a run, not an error, to a reader who changes β, the seed or the data."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest

matplotlib.use("Agg")
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FAST = {"steps=100": "steps=3", "eval_every=20": "eval_every=2", "per_prompt = 8": "per_prompt = 1"}


@pytest.fixture(scope="module")
def cells():
    notebook = nbformat.read(NOTEBOOKS / "10_full_implementation.ipynb", as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def run(cells, monkeypatch):
    """Run the cells that hold one of the marks, in their order, with other texts in them."""
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))

    def run(marks, changes):
        chosen = [cell for cell in cells if any(mark in cell for mark in marks)]
        assert len(chosen) == len(marks)
        left, names = dict(changes), {}
        for cell in chosen:
            for old in [old for old in left if old in cell]:
                assert cell.count(old) == 1
                cell = cell.replace(old, left.pop(old))
            exec(compile(cell, "cell", "exec"), names)
        assert not left, f"not in the notebook: {[*left]}"
        return names

    return run


FULL_RUN = [
    "import matplotlib",
    "config = DPOConfig(\n    beta=1.0",
    "labeled = ",
    "def measure(",
    "history = train_dpo(",
    "plt.subplots(3, 2",
    "def row_of(",
]


@pytest.mark.parametrize(
    "changes",
    [
        {"beta=1.0": "beta=0.1", "seed=0,": "seed=3,"},
        {
            'loss_name = "dpo"': 'loss_name = "naive"',
            "beta=1.0": "beta=0.3",
            "pairs_used = None": "pairs_used = 5",
            "batch_size=32": "batch_size=8",
            "seed=0,": "seed=11,",
            "learning_rate=2e-4": "learning_rate=1e-3",
        },
        {"seed=0,": "seed=7, schedule='cosine', warmup_steps=2,"},
    ],
)
def test_other_settings_give_a_run(run, capsys, changes):
    names = run(FULL_RUN, FAST | changes)
    assert [row["step"] for row in names["history"].evaluations] == [0, 2, 3]
    assert names["history"].steps[0]["loss"] > 0
    assert "the same as the stored run: False" in capsys.readouterr().out


@pytest.mark.parametrize("as_file", [False, True])
def test_other_rows_give_a_run(run, tmp_path, capsys, as_file):
    row = {"prompt": "My phone is lost.", "chosen": "I am sorry.", "rejected": "Please wait."}
    text = json.dumps({**row, "seconds": 2.5})
    setup = "\nreference = make_reference(load_sft())"
    setup += "\nheld_out = PreferenceDataset([france], tokenizer)"
    france = 'france = PreferenceRecord("The capital of France", "is Paris.", "is Lyon.")'
    last = "tokenizer = world.world_tokenizer()"
    marks = ["import matplotlib", "rows_file = None", "own_records = read_jsonl("]
    changes = {last: f"{last}\n{france}{setup}"}
    if as_file:
        (tmp_path / "mine.jsonl").write_text(text + "\n", encoding="utf-8")
        changes["rows_file = None"] = f"rows_file = {str(tmp_path / 'mine.jsonl')!r}"
    else:
        changes['pasted = """'] = f'pasted = """{text}"""\nwas_pasted = """'
    names = run(marks, changes)
    assert len(names["own_records"]) == 1
    assert names["own_records"][0].extra == {"seconds": 2.5}
    assert names["run"].steps[-1]["loss"] < names["run"].steps[0]["loss"]
    assert "I am sorry." in capsys.readouterr().out
