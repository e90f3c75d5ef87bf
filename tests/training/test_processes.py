"""Two processes on one machine train as one does, and write one set of files."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.training import train_dpo
from dpo_lib.training.processes import Processes
from tests.training.runs import (
    CONFIG,
    Stopped,
    load_dataset,
    load_thumbs,
    new_policy,
    run_in_two_processes,
)

CASES = {
    # five pairs on two processes: three and two
    "dpo": ({}, "dpo"),
    "parts": ({"accumulate": 2, "packed": False}, "simpo"),
    "level": ({"batch_size": 6, "accumulate": 2}, "kto"),  # looks across the batch
    "thumbs": ({"batch_size": 6, "accumulate": 2, "beta": 1.0}, "kto"),
    "resumed": ({"max_grad_norm": 0.1}, "dpo"),  # interrupted after two evaluations
}


def data_of(name):
    return load_thumbs() if name == "thumbs" else load_dataset()


def look(policy):
    return {"logp": get_pair_log_probs(policy, load_dataset().batch([1]))[0].item()}


def shard(accelerator):
    """FSDP on CPUs: Accelerate has it for accelerators only, so its state is set by hand."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    AcceleratorState._shared_state["fsdp_plugin"] = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Block"],
        cpu_ram_efficient_loading=False,
    )
    for state in (AcceleratorState, PartialState):
        state._shared_state["distributed_type"] = DistributedType.FSDP
    assert accelerator.is_fsdp2


def main(folder: str, way: str) -> None:
    """What each process runs."""
    from accelerate import Accelerator

    torch.set_num_threads(1)
    out, accelerator = Path(folder), Accelerator(cpu=True)
    if way == "fsdp":
        shard(accelerator)
    for name, (settings, loss) in CASES.items():
        config = dataclasses.replace(CONFIG, **settings)
        fixed = {
            "config": config,
            "loss": loss,
            "accelerator": accelerator,
            "checkpoint": out / f"{name}.pt",
        }
        if name == "resumed":
            calls = []

            def stop(policy, calls=calls):
                calls.append(1)
                if len(calls) == 3:
                    raise Stopped
                return look(policy)

            with pytest.raises(Stopped):
                train_dpo(new_policy(), None, data_of(name), evaluate=stop, **fixed)
        rows, policy = [], new_policy()
        history = train_dpo(
            policy, None, data_of(name), evaluate=look, on_step=rows.append, **fixed
        )
        assert hasattr(next(policy.parameters()), "full_tensor") == (way == "fsdp")
        done = {"steps": history.steps, "evaluations": history.evaluations, "rows": rows}
        (out / f"{name}.{accelerator.process_index}.json").write_text(json.dumps(done))
    accelerator.end_training()


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def runs(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    result = run_in_two_processes("tests.training.test_processes", str(out), request.param)
    assert result.returncode == 0, result.stderr[-3000:]
    return out, result.stderr


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_the_numbers_of_one(runs, name):
    out, _ = runs
    settings, loss = CASES[name]
    config = dataclasses.replace(CONFIG, **settings)
    alone = train_dpo(
        new_policy(), None, data_of(name), config, loss=loss, evaluate=look, progress=False
    )
    first, second = (json.loads((out / f"{name}.{i}.json").read_text()) for i in range(2))
    for row, expected in zip(first["steps"], alone.steps, strict=True):
        assert row == pytest.approx(expected, rel=1e-8, abs=1e-9)
    for row, expected in zip(first["evaluations"], alone.evaluations, strict=True):
        assert row == pytest.approx(expected, rel=1e-8)
    assert second["steps"] == first["steps"]
    assert second["evaluations"] == first["evaluations"]


def test_the_main_process_alone_reports_and_writes(runs):
    out, stderr = runs
    for name in CASES:
        first, second = (json.loads((out / f"{name}.{i}.json").read_text()) for i in range(2))
        assert second["rows"] == []
        assert first["rows"] == first["steps"][-len(first["rows"]) :]
    assert len(first["rows"]) == 4  # after the last checkpoint; two updates were made before it
    results = [f"{name}.{i}.json" for name in CASES for i in range(2)]
    assert sorted(p.name for p in out.iterdir()) == sorted([*results, *(f"{n}.pt" for n in CASES)])
    assert stderr.count("| 0/6 [") == len(CASES)  # one progress bar each


def test_more_parts_than_pairs_is_refused():
    class Machines:
        num_processes, process_index, distributed_type = 4, 0, "MULTI_CPU"

    config = dataclasses.replace(CONFIG, accumulate=2)
    with pytest.raises(ValueError, match=r"accumulate times the number of processes \(2 \* 4\)"):
        train_dpo(new_policy(), None, load_dataset(), config, accelerator=Machines())


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    alone = Processes.launched()
    assert (alone.number, alone.rank, alone.main, alone.sharded) == (1, 0, True, False)
    assert alone.gather([1, "a"]) == [1, "a"]


def test_an_error_that_all_meet_is_reported_once(capsys):
    class Second:
        num_processes, process_index, distributed_type = 2, 1, "MULTI_CPU"

    first, second = Processes(), Processes(Second())
    with pytest.raises(ValueError, match="bad"), first.quiet_others():
        raise ValueError("bad")
    with pytest.raises(SystemExit), second.quiet_others():
        raise ValueError("bad")
    for processes in (first, second):
        processes.say("once")
    assert capsys.readouterr().err == "once\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
