"""The benchmarks: whether they compare like with like. No test here looks at a time."""

import copy
import functools
import math
import os
import platform
import statistics
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from dpo_lib.benchmarks import (
    growth,
    implementations,
    job,
    machine,
    report,
    step,
    turns,
    work,
    workloads,
)
from dpo_lib.benchmarks.peers import PEERS
from dpo_lib.benchmarks.turns import DisagreementError, Implementation, WorkerError, take_turns
from dpo_lib.data import PreferenceDataset
from dpo_lib.experiments.store import store
from dpo_lib.fast.prefix_tree import pack_pairs
from dpo_lib.models import TinyGPTConfig
from tests.benchmarks import workers as workers
from tests.book.pages import CHAPTERS
from tools import bench_book as book

SMALL = TinyGPTConfig(23, context_length=24, width=16, heads=2, layers=2)


def small_workload(steps=3, batch_size=4):
    """Pairs of unequal lengths; some prompts are the same, some begin alike."""
    pairs = [
        *workloads.random_pairs(3, 5, 3, 7, SMALL.vocab_size, seed=1),
        *workloads.random_pairs(3, 8, 6, 2, SMALL.vocab_size, seed=2),
    ]
    pairs.append({**pairs[0], "prompt": pairs[1]["prompt"]})
    pairs.append({**pairs[0], "prompt": [*pairs[1]["prompt"][:3], 4, 5]})
    return workloads.Workload(
        SMALL, workloads._batches(pairs, steps, batch_size), 0, learning_rate=1e-2, beta=0.5
    )


class FakeTurn:
    """Keeps the losses, and sees that turns are taken in order."""

    def __init__(self):
        self.losses, self.state = [], "new"

    def loaded(self):
        assert self.state == "new"
        self.state = "waiting"

    def begin(self):
        assert self.state == "waiting"
        self.state = "running"

    def end(self, loss):
        assert self.state == "running"
        self.state = "waiting"
        self.losses.append(loss() if callable(loss) else loss)


def run(monkeypatch, function, **options):
    """Losses and final weights of an implementation on the small model in float64."""
    kept = []

    def load(config):
        kept.append(workloads.new_tiny(config).double())
        return kept[-1]

    def convert(model):
        kept.append(workloads.as_transformers(model).double())
        return kept[-1]

    monkeypatch.setattr(implementations, "load_model", load)
    monkeypatch.setattr(implementations, "as_transformers", convert)
    turn = FakeTurn()
    function(turn, [small_workload()], **options)
    assert turn.state == "waiting"
    return turn.losses, kept[-1]


# --- the steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS)
def test_peers_have_our_losses_and_make_our_updates(monkeypatch, peer):
    losses, policy = run(monkeypatch, implementations.run_ours)
    theirs, other = run(monkeypatch, implementations.run_peer, peer=peer)
    assert losses[0] == pytest.approx(math.log(2))
    assert abs(losses[-1] - losses[0]) > 0.01  # something was learned
    assert theirs == pytest.approx(losses, abs=1e-10)
    for name, value in policy.state_dict().items():
        assert_close(other.state_dict()[name], value, atol=1e-8, rtol=1e-8, msg=name)


@pytest.mark.parametrize("options", [{"packed": False}, {"lean": False}])
def test_variants_of_ours_agree(monkeypatch, options):
    losses, _ = run(monkeypatch, implementations.run_ours)
    others, _ = run(monkeypatch, implementations.run_ours, options=options)
    assert others == pytest.approx(losses, abs=1e-10)


def test_the_tiny_model_and_its_gpt2_agree(monkeypatch):
    config = TinyGPTConfig(23, context_length=24, width=16, heads=4, layers=3)
    tiny = workloads.new_tiny(config)
    converted = workloads.as_transformers(tiny)
    tokens = torch.randint(0, 23, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(converted(tokens).logits, tiny(tokens))
    assert tiny(tokens).std() > 0.1  # or any two models agree

    losses, _ = run(monkeypatch, implementations.run_ours)
    theirs, _ = run(monkeypatch, implementations.run_ours, transformers_model=True)
    assert theirs == pytest.approx(losses, abs=1e-10)


def test_every_implementation_can_be_measured():
    named = {name for groups in step.GROUPS.values() for group in groups.values() for name in group}
    assert named == {*everybody()}
    assert {*growth.MEASURED} <= named
    for groups in step.GROUPS.values():
        for group in groups.values():
            assert group[0] == "ours"  # what losses and times are compared with
    exact = {name for name, found in everybody().items() if found.tolerance == 1e-5}
    assert named - exact == {"ours_bfloat16", "trl_default", "trl_bfloat16"}


def test_trl_gets_the_ids_back_from_its_texts():
    for row in small_workload().batches[0]:
        tokenizer = implementations.trl_tokenizer(SMALL.vocab_size, 0)
        assert tokenizer.eos_token_id == 0
        for ids in row.values():
            assert tokenizer(implementations.as_text(ids))["input_ids"] == ids


# --- what is trained -----------------------------------------------------------------------------


def test_the_tiny_workload():
    workload = workloads.tiny(3)
    assert workload == workloads.tiny(3)
    assert [len(batch) for batch in workload.batches] == [12] * 3
    for row in (row for batch in workload.batches for row in batch):
        assert 35 <= len(row["prompt"]) <= 45
        for side in ("chosen", "rejected"):
            assert workloads.SHORTEST <= len(row[side]) <= workloads.LONGEST
            assert row[side][-1] == workload.eos_id
            assert workload.eos_id not in row[side][:-1]
    prompt = workloads.token_statistics(workload)["prompt"]
    assert 35 <= prompt[0] <= prompt[1] <= prompt[2] <= 45


def test_every_pair_is_used_before_any_is_used_again():
    rows = workloads.random_pairs(5, 3, 3, 3, 50)
    used = [row for batch in workloads._batches(rows, 5, 2) for row in batch]
    for start in (0, 5):
        assert sorted(map(str, used[start : start + 5])) == sorted(map(str, rows))


def test_ours_takes_the_batches_in_their_order():
    workload = small_workload()
    dataset = workloads.InOrder(workload)
    assert isinstance(dataset, PreferenceDataset)
    for number, batch in enumerate(workload.batches):
        pairs = dataset.pairs_of_step(number, workload.batch_size, seed=5)
        assert [dataset[int(i)] for i in pairs] == batch


def test_a_response_without_its_end_is_refused():
    workload = small_workload()
    workload.batches[0][0] = {**workload.batches[0][0], "chosen": [3, 4]}
    with pytest.raises(ValueError, match="must end with eos_id"):
        workloads.InOrder(workload)


# --- the unavoidable work ------------------------------------------------------------------------


def test_the_operations_are_those_that_torch_counts():
    rows = small_workload().batches[0]
    model = workloads.new_tiny(SMALL)
    packed = pack_pairs(rows)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        states = model.hidden_states(packed.tokens, packed.visible(), packed.positions)
        logits = states.flatten(0, 1)[packed.readers] @ model.token_embedding.weight.T
        logits.sum().backward()
    tokens = work.tokens_of(rows)
    # Torch computes, and counts, the attention of every node to every node.
    everywhere = work.Tokens(tokens.total, tokens.unique, tokens.readers, tokens.unique**2)
    assert work.unavoidable_flops(work.sizes_of(model), everywhere) == counter.get_total_flops()
    assert tokens.visible < tokens.unique**2


def test_tokens_by_hand():
    rows = [
        {"prompt": [1, 2], "chosen": [3, 4, 0], "rejected": [3, 5, 0]},
        {"prompt": [1, 6], "chosen": [7, 0], "rejected": [8, 0]},
    ]
    # 1; 2, 3, 4, 5; 6, 7, 8: the last token of a response is predicted, never read.
    assert work.tokens_of(rows) == work.Tokens(
        total=18, unique=8, readers=7, visible=1 + 2 + 3 + 4 + 4 + 2 + 3 + 3
    )


def test_sizes_are_those_of_the_model():
    tiny = work.sizes_of(workloads.new_tiny(SMALL))
    assert tiny == work.Sizes(2 * 12 * 16 * 16, 23 * 16, 2, 16)
    assert work.sizes_of(workloads.as_transformers(workloads.new_tiny(SMALL))) == tiny


def test_sizes_of_a_llama_with_a_head_of_its_own():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
    )
    for tied in (True, False):
        config.tie_word_embeddings = tied
        layer = 8 * 24 + 2 * 8 * 12 + 24 * 8 + 3 * 8 * 12  # q, k and v, o, gate, up and down
        assert work.sizes_of(LlamaForCausalLM(config)) == work.Sizes(3 * layer, 160, 3, 24)


# --- taking turns --------------------------------------------------------------------------------


def worker(function, tolerance=0.0, **options):
    return Implementation(function.__name__, function, tolerance, options)


def test_turns_rotate_and_warm_up_rounds_do_not_count(tmp_path):
    log = tmp_path / "turns.txt"
    three = {
        name: worker(workers.steps, losses=[1.0, 2.0, 3.0, 4.0], log=str(log), name=name)
        for name in ("a", "b", "c")
    }
    done = []
    found = take_turns(three, [False, True, True, True], on_round=done.append)
    assert "".join(log.read_text().split()) == "abcbcacababc"
    assert done == [0, 1, 2, 3, 4]
    for mine in found.values():
        assert len(mine.seconds) == 3
        assert mine.losses == [1.0, 2.0, 3.0, 4.0]
        assert mine.gap == 0.0
        assert mine.peak_mib > 1


@pytest.mark.parametrize("wrong", [0.5 + 2e-5, math.nan, math.inf])
def test_losses_that_disagree_are_refused(wrong):
    two = {
        "a": worker(workers.steps, 1e-5, losses=[0.7, 0.5]),
        "b": worker(workers.steps, 1e-5, losses=[0.7 + 5e-6, wrong]),
    }
    with pytest.raises(DisagreementError, match=r"round 1: the loss of b is .* from 0\.5000000"):
        take_turns(two, [True, True])


def test_the_largest_gap_of_all_rounds_is_kept():
    two = {
        "a": worker(workers.steps, 1.0, losses=[0.5, 0.5, 0.5]),
        "b": worker(workers.steps, 1.0, losses=[0.5, 0.75, 0.625]),
    }
    found = take_turns(two, [False, True, True])
    assert (found["a"].gap, found["b"].gap) == (0.0, 0.25)


def test_a_step_is_timed_and_the_reading_of_its_loss_is_not():
    found = take_turns({"a": worker(workers.slow, losses=[0.5], seconds=0.05)}, [True])
    assert 0.05 <= found["a"].seconds[0] < 1


def test_the_peak_of_memory_counts_from_where_the_model_is_loaded():
    both = {
        "before": worker(workers.hungry, before_mib=400, after_mib=1),
        "after": worker(workers.hungry, before_mib=1, after_mib=200),
    }
    found = take_turns(both, [True])
    gap = found["after"].peak_mib - found["before"].peak_mib
    assert 150 < gap < 250


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (workers.failing, "bad failed:(?s:.*)something is wrong here"),
        (workers.dying, "exit code 7(?s:.*)the last words"),
    ],
)
def test_a_failure_is_reported_with_its_reason(function, message):
    some = {"good": worker(workers.steps, losses=[0.0]), "bad": worker(function)}
    with pytest.raises(WorkerError, match=message):
        take_turns(some, [True])


def test_a_silent_worker_is_given_up(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE", 0.2)
    with pytest.raises(WorkerError, match="has been silent"):
        take_turns({"a": worker(workers.silent)}, [True])


def test_a_step_too_many_is_noticed():
    with pytest.raises(WorkerError, match="sent 'end' where 'step'"):
        take_turns({"a": worker(workers.steps, losses=[0.0])}, [True, True])


def test_processes_get_their_threads_and_ours_are_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = take_turns({"a": worker(workers.threads)}, [True], n_threads=3)
    assert found["a"].losses == [3.0]
    assert turns.os.environ["OMP_NUM_THREADS"] == "1"
    assert "MKL_NUM_THREADS" not in turns.os.environ


def test_losses_that_stay_where_they_are_say_nothing():
    moved, stuck = (turns.Measured(losses=[0.69, x]) for x in (0.68, 0.69))
    step._check_moved({"a": moved})
    with pytest.raises(SystemExit, match="did not change the loss of b"):
        step._check_moved({"a": moved, "b": stuck})


# --- the machine and the book --------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", "it is slow"])
def test_the_rates_are_those_of_the_products(monkeypatch, reason):
    monkeypatch.setattr(machine, "SECONDS", 0.01)
    monkeypatch.setattr(machine, "reason_against_bfloat16", lambda: reason)
    rates = machine.matmul_rates([(8, 16, 4), (64, 64, 64)])
    assert {*rates} == {"float32"} | (set() if reason else {"bfloat16"})
    for found in rates.values():
        assert {*found} == {"8 x 16 x 4", "64 x 64 x 64", "best"}
        assert found["best"] == max(found.values()) > 0


@pytest.mark.parametrize("dtype", machine.DTYPES.values())
def test_the_multiplications_are_the_same(dtype):
    x, w = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 5))
    for multiply in machine.multiplications(dtype):
        product = multiply(x.to(dtype), w.to(dtype))
        assert_close(product.float(), x @ w.T, atol=1e-5 if dtype == torch.float32 else 0.1, rtol=0)


HELD = (
    "from dpo_lib.benchmarks import machine;"
    " print(machine.kind(), *machine.matmul_rates([(8, 8, 8)]))"
)


@pytest.mark.parametrize("name", machine.HELD_BY)
def test_a_processor_held_to_older_instructions_is_of_another_kind(name):
    older = os.environ | {name: "AVX2" if "ONEDNN" in name else "avx2"}
    run = subprocess.run([sys.executable, "-c", HELD], env=older, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kind, *rates = run.stdout.split()
    if platform.machine() in ("x86_64", "AMD64"):
        assert kind != "avx512"
        assert rates == ["float32"] or "ONEDNN" not in name
    assert kind != machine.kind() or machine.kind() != "avx512"


def test_what_the_processor_lacks_is_not_run(monkeypatch):
    monkeypatch.setattr(machine, "reason_against_bfloat16", lambda: "it is slow")
    monkeypatch.setitem(step.WORKLOADS, "tiny", lambda rounds: small_workload(rounds))
    asked = []

    def take(some, *others):
        asked.extend(some)
        return {name: turns.Measured([1.0], [0.5, 0.7]) for name in some}

    monkeypatch.setattr(step, "take_turns", take)
    described, rows = step.measure("tiny", 1, 1)
    names = {*step.GROUPS["tiny"]["all"]}
    assert {*asked} == names - {"ours_bfloat16", "trl_default", "trl_bfloat16"}
    assert {row["name"] for row in rows} == {*asked}
    assert described["left_out"] == dict.fromkeys(names - {*asked}, "it is slow")


def test_a_quick_look_is_not_kept(tmp_path):
    parser = step.parser_of("A.", step.WORKLOADS)
    options = step.read_options(parser, [])
    assert options.out == machine.RESULTS / machine.kind()
    assert options.models == [*step.WORKLOADS]
    quick = step.read_options(parser, ["--quick"])
    assert (quick.models, quick.rounds) == (["tiny"], 1)
    assert machine.RESULTS not in quick.out.parents
    assert step.read_options(parser, ["--quick", "--out", str(tmp_path)]).out == tmp_path


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine.describe(2)["held_by"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    for name in machine.HELD_BY:
        monkeypatch.delenv(name, raising=False)
    found = machine.describe(2)
    assert "held_by" not in found
    assert found["kind"] == machine.kind()
    assert found["threads"] == 2
    assert found["cores"] >= 1
    assert found["versions"]["torch"] == torch.__version__


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(SystemExit, match=r"failed:(?s:.*)ZeroDivisionError"):
        book.run("-c", "1 / 0")


# --- growth --------------------------------------------------------------------------------------


def test_a_line_is_found():
    line = growth.fit_line([1, 2, 4], [3.0, 5.0, 9.0])
    assert line == pytest.approx(growth.Line(1.0, 2.0, 1.0, 0.0), abs=1e-9)
    bent = growth.fit_line([1, 2, 4], [3.0, 5.0, 15.0])
    assert bent.r_squared < 0.99
    assert bent.worst > 0.05


def growth_rows(seconds):
    """Rows as `growth` stores them, with times that a function of the tokens gives."""
    rows = []
    for model, axes in growth.AXES.items():
        for axis in axes:
            for point in axis.points:
                prompts, responses = point.batch * point.prompt, 2 * point.batch * point.response
                for name in growth.MEASURED:
                    rows.append(
                        {
                            "model": model,
                            "varied": axis.varied,
                            **point._asdict(),
                            "unique_tokens": prompts + responses,
                            "name": name,
                            "seconds": [seconds(name, prompts, responses)] * 3,
                        }
                    )
    return rows


def paid(name, prompts, responses):
    """Ours pays a prompt once, the others once for each response."""
    return 0.1 + 1e-3 * (prompts * (1 if name == "ours" else 2) + responses)


def test_what_a_prompt_costs():
    rows = growth_rows(paid)
    for model in growth.AXES:
        assert growth.linearity(rows, model).r_squared == pytest.approx(1)
        assert growth.prompt_price(rows, model, "ours") == pytest.approx(1)
        assert growth.prompt_price(rows, model, "trl_precomputed") == pytest.approx(2)


def test_points_become_pairs_of_their_sizes():
    point = growth.Point(batch=3, prompt=7, response=5, vocabulary=50)
    (workload,) = growth.workloads("tiny", [point], rounds=2)
    assert workload.model.vocab_size == 50
    assert len(workload.batches) == growth.WARM_UP + 2
    for batch in workload.batches:
        assert [[len(row[x]) for x in ("prompt", "chosen", "rejected")] for row in batch] == [
            [7, 5, 5]
        ] * 3
    assert workload.batches[0] != workload.batches[1]


# --- the whole job -------------------------------------------------------------------------------


def test_the_pairs_of_the_job(tmp_path):
    from dpo_lib.data import read_jsonl

    job.write_pairs(tmp_path / "a.jsonl", 300)
    job.write_pairs(tmp_path / "b.jsonl", 300)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    records = read_jsonl(tmp_path / "a.jsonl")
    assert len({record.prompt for record in records}) == 300
    lengths = [len(record.chosen.split()) for record in records]
    assert 35 < statistics.median(lengths) < 60
    assert min(lengths) < 15
    assert max(lengths) > 120
    assert all(record.chosen != record.rejected for record in records)


def test_the_command_of_ours_is_one_that_we_have(tmp_path):
    from dpo_lib.cli.parser import make_parser

    _, _, *typed = job.ours(tmp_path / "a.jsonl", tmp_path / "out", job.FULL)
    args = make_parser().parse_args(typed)
    assert (args.steps, args.batch_size, args.lora) == (job.FULL.updates, job.FULL.batch, job.LORA)
    assert round(args.held_out * job.PAIRS) == job.FULL.held_out


def test_the_job_is_measured_in_turns(monkeypatch):
    started = []

    def script(name):
        code = (
            "import sys, pathlib, time; out = pathlib.Path(sys.argv[1]) / 'model';"
            f"b = b'1' * ({310 if name == 'ours' else 10} << 20); time.sleep(1);"
            "out.mkdir(parents=True); (out / 'adapter_model.safetensors').touch()"
        )
        return lambda file, out, size: started.append(name) or ["-c", code, str(out)]

    monkeypatch.setattr(job, "ours", script("ours"))
    monkeypatch.setattr(job, "trl", script("trl"))
    rows = job.measure(job.QUICK, 2, 1)
    assert started == ["ours", "trl", "trl", "ours"]
    mine, theirs = rows
    assert 200 < mine["peak_mib"] - theirs["peak_mib"] < 400
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("code", "message"),
    [("1 / 0", r"failed:(?s:.*)ZeroDivisionError"), ("", "left no trained model")],
)
def test_a_job_that_fails_is_not_timed(monkeypatch, code, message):
    monkeypatch.setattr(job, "ours", lambda *_: ["-c", code])
    with pytest.raises(SystemExit, match=message):
        job.measure(job.QUICK, 1, 1)


def test_the_ratio_of_the_job_is_of_the_same_round():
    assert job.ratio(made_up().job) == pytest.approx(0.45)


# --- the report ----------------------------------------------------------------------------------


def everybody():
    return implementations.implementations([small_workload()])


def made_up(**changed):
    """`usual_results`, some of them replaced."""
    return usual_results()._replace(**changed)


@functools.cache
def usual_results():
    """Results in which ours takes 1 s and everybody else 4 s, but stranger numbers elsewhere."""
    rows, settings = [], {}
    for model, groups in step.GROUPS.items():
        for group, names in groups.items():
            for name in names:
                rows.append(
                    {
                        "model": model,
                        "group": group,
                        "name": name,
                        "title": everybody()[name].title,
                        "tolerance": everybody()[name].tolerance,
                        "gap": 2e-6,
                        "peak_mib": 1000 if name == "ours" else 2000,
                        "seconds": [1.0, 1.1, 0.9] if name == "ours" else [4.0, 4.4, 3.6],
                    }
                )
        settings[model] = {
            "batch_size": 4,
            "vocabulary": 260,
            "tokens": {"prompt": [35, 41, 45], "chosen": [20, 28, 60], "rejected": [20, 29, 60]},
            "sequence_tokens": [500] * 3,
            "unique_tokens": [300] * 3,
            "gflop": [120.0, 132.0, 108.0],
            "rounds": 3,
        }
    settings["machine"] = machine.describe(2) | {"versions": dict.fromkeys(
        ("torch", "transformers", "trl"), "1.0"
    )}  # fmt: skip
    settings["matmul_gflops"] = {"float32": {"best": 200.0}, "bfloat16": {"best": 400.0}}
    book_rows = [
        {"what": "build", "seconds": 15.0},
        {"what": "notebooks", "seconds": 100.0},
        {"what": "import", "package": "torch", "seconds": [1.0, 2.0, 1.0]},
        {"what": "import", "package": "dpo_lib", "seconds": [1.04, 2.08, 1.5]},
        {"what": "page", "page": "notebooks/a.html", "bytes": 1_400_000},
        {"what": "page", "page": "book/b.html", "bytes": 1_700_000},
        {"what": "slider", "page": "a", "widget": "w", "median_ms": 3.0, "late_ms": 5.0},
    ]
    return report.Results(
        {"settings": settings, "rows": rows},
        {"settings": {}, "rows": growth_rows(paid)},
        {"settings": {}, "rows": book_rows},
        {
            "settings": {"pairs": 1000, **job.FULL._asdict()},
            "rows": [
                {"name": "ours", "peak_mib": 1500, "seconds": [40.0, 50.0]},
                {"name": "trl_precomputed", "peak_mib": 2500, "seconds": [100.0, 100.0]},
            ],
        },
        {
            "settings": {},
            "rows": [
                {"what": "update", "pairs": 32, "median_ms": 50.0},
                {"what": "update", "pairs": 8, "median_ms": 14.0},
                {"what": "key", "median_ms": 9.0, "late_ms": 15.0, "own_late_ms": 6.0},
            ],
        },
    )


def without_bfloat16():
    """The same from a processor that has none."""
    step = copy.deepcopy(made_up().step)
    gone = {"ours_bfloat16", "trl_default", "trl_bfloat16"}
    step["rows"] = [row for row in step["rows"] if row["name"] not in gone]
    del step["settings"]["matmul_gflops"]["bfloat16"]
    for model in report.GROUPS:
        step["settings"][model]["left_out"] = dict.fromkeys(sorted(gone), "it is slow")
    step["settings"]["machine"] |= {"held_by": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}
    return report.Results(step)


def test_ratios_are_of_the_same_round():
    results = made_up().step
    assert report.ratios(results, "smollm2", "ours", "trl_default") == pytest.approx([0.25] * 3)
    assert len(report.ratios(results, "smollm2", "ours", "ours")) == 9  # it is in every group
    with pytest.raises(ValueError, match="no group of smollm2 has both"):
        report.ratios(results, "smollm2", "textbook", "trl_default")


def test_the_summary_of_ours():
    for model in step.GROUPS:
        first, *others = report.summaries(made_up().step, model)
        assert first.name == "ours"
        assert first.seconds == 1.0
        assert first.share == pytest.approx(0.6)  # 120 of 200 GFLOP/s
        for other in others:
            assert other.ratio == pytest.approx((4.0, 4.0, 4.0))
            rate = 400 if "bfloat16" in other.title else 200
            assert other.share == pytest.approx(120 / 4 / rate)


def test_the_limits_hold_or_are_missed():
    results = made_up()
    found = {limit.text: limit for limit in report.limits(results)}
    missed = {text for text, limit in found.items() if not limit.holds}
    assert missed == {  # in these numbers ours_stock is as slow as TRL
        "SmolLM2: time of ours_stock over trl_default",
        "SmolLM2: time of ours_stock over trl_precomputed",
        "SmolLM2: time of ours_bfloat16 over trl_default",
    }
    assert found["import of dpo_lib over import of torch"].value == pytest.approx(1.04)
    assert found["page: update on 8 pairs (ms)"].value == 14
    assert found["page: key to frame while it trains, 95 % (ms)"].value == 15
    assert found["book: heaviest chapter (MB)"].value == pytest.approx(1.4)
    assert "MISSED" in str(found["SmolLM2: time of ours_stock over trl_default"])

    lesser = {limit.text for limit in report.limits(without_bfloat16())}
    assert lesser < {*found}
    assert not any("bfloat16" in text or "default" in text for text in lesser)
    assert "tiny GPT: time of ours over trl_precomputed" in lesser
    assert not any("book" in text for text in lesser)

    worse = copy.deepcopy(results)
    for row in worse.step["rows"]:
        if row["name"] == "ours":
            row["seconds"] = [2 * seconds for seconds in row["seconds"]]
            row["peak_mib"] = 1400
        row["gap"] = 2e-5
    still = {limit.text for limit in report.limits(worse) if limit.holds}
    assert {limit.split(":")[0] for limit in still} == {
        *("smollm2", "tiny", "book", "page", "import of dpo_lib over import of torch"),
        *("SmolLM2-135M", "tiny GPT"),  # over ours_stock, which takes four times as long
        "file to finished run",
    }


def test_the_table_has_a_line_for_each_implementation():
    part = report.readme_part({"avx512": made_up()})
    lines = [line.split("|") for line in part.splitlines() if line.startswith("|")]
    assert {len(line) for line in lines} == {10}
    titles = [implementation.title for implementation in everybody().values()]
    assert sorted(line[1].strip(" *") for line in lines[2:]) == sorted(titles)


def test_kinds_of_processors_stand_side_by_side():
    part = report.readme_part({"avx512": made_up(), "avx2": without_bfloat16()})
    rows = [line for line in part.splitlines() if line.startswith("| ")]
    heads, *first = rows[: 2 + len(everybody())]
    assert heads.count("AVX-512") == heads.count("AVX2") == 2
    cells = {line.split(" | ")[0]: line.strip("| ").split(" | ")[1:] for line in first[1:]}
    assert cells["| TRL: float32"] == ["4.00"] * 4
    assert cells["| Ours: bfloat16"] == ["4.00", "left out"] * 2
    assert "Left out: ours_bfloat16, trl_bfloat16, trl_default, since it is slow." in part
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in part
    assert "0.45 of its time" in part
    (_, alone) = part.split("*Processors with AVX2*")
    assert "bfloat16 400" not in alone
    assert part.index("*Processors with AVX-512*") < part.index("*Processors with AVX2*")


def test_stored_kinds_are_found(tmp_path):
    assert next(iter(report.load_all())) == "avx512"
    for name in ("sve", "avx2"):
        store("step", {"a": 1}, [], tmp_path / name)
    assert [*report.load_all(tmp_path)] == ["avx2", "sve"]
    assert report.load(tmp_path / "avx2").growth is None
    (tmp_path / "avx512").mkdir()
    with pytest.raises(ValueError, match=r"has no step\.json"):
        report.load_all(tmp_path)


def test_the_part_replaces_the_old_one():
    old = f"# A\n\n{report.START}\nold\n{report.END}\n\n## B\n"
    new = report.with_part(old, "new")
    assert new == f"# A\n\n{report.START}\n\nnew\n\n{report.END}\n\n## B\n"
    assert report.with_part(new, "new") == new
    for broken in ("# A\n", f"# A\n{report.START}\n", f"{report.END}\n{report.START}\n"):
        with pytest.raises(ValueError, match="must have the markers"):
            report.with_part(broken, "new")


def test_the_figure_shows_every_bar():
    figure = report.draw(made_up().step)
    for ax in figure.axes:
        widths = [bar.get_width() for bar in ax.patches]
        assert widths == pytest.approx([1.0] + [4.0] * (len(report.SHOWN) - 1))


def test_the_growth_is_drawn_for_each_size():
    figure = report.draw_growth(made_up().growth)
    drawn = [[line.get_label() for line in ax.lines] for ax in figure.axes if ax.get_visible()]
    assert len(drawn) == sum(map(len, growth.AXES.values()))
    assert all("ours" in labels and "TRL, precomputed" in labels for labels in drawn)


# --- what is stored ------------------------------------------------------------------------------


def stored(kind="avx512"):
    return report.load(machine.RESULTS / kind)


@pytest.mark.parametrize("kind", report.load_all())
def test_every_step_is_stored(kind):
    rows, settings = stored(kind).step["rows"], stored(kind).step["settings"]
    assert settings["machine"]["kind"] == kind
    found = [(row["model"], row["group"], row["name"]) for row in rows]
    assert found == [
        (model, group, name)
        for model, groups in step.GROUPS.items()
        for group, names in groups.items()
        for name in names
        if name not in settings[model].get("left_out", ())
    ]
    for row in rows:
        assert row["gap"] <= row["tolerance"]
        assert len(row["seconds"]) == settings[row["model"]]["rounds"]


def test_every_point_of_growth_is_stored():
    found = {
        (row["model"], row["varied"], *(row[x] for x in growth.Point._fields), row["name"])
        for row in stored().growth["rows"]
    }
    assert found == {
        (model, axis.varied, *point, name)
        for model, axes in growth.AXES.items()
        for axis in axes
        for point in axis.points
        for name in growth.MEASURED
        if name not in growth.LEFT_OUT.get(model, ())
    }


def test_every_part_of_the_book_is_stored():
    rows = stored().book["rows"]
    assert {row["what"] for row in rows} == {"build", "notebooks", "import", "page", "slider"}
    weighed = {row["page"] for row in rows if row["what"] == "page"}
    assert weighed >= {f"{name}.html" for name in CHAPTERS}


def test_the_readme_shows_what_is_stored():
    readme = report.README.read_text("utf-8")
    assert report.with_part(readme, report.readme_part(report.load_all())) == readme


def test_the_figures_are_those_of_the_stored_results():
    from dpo_lib.figures import figure_svg

    drawn = {
        report.FIGURE: report.draw(stored().step),
        report.GROWTH_FIGURE: report.draw_growth(stored().growth),
    }
    for path, figure in drawn.items():
        assert figure_svg(figure) + "\n" == path.read_text("utf-8"), path.name
