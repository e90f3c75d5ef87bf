"""Checkpoints: an interrupted run goes on with the same bits; a file of another run is refused."""

import copy
import dataclasses
import functools

import pytest
import torch

from dpo_lib import fingerprint, make_reference
from dpo_lib.data import PreferenceDataset, make_preferences
from dpo_lib.losses import dpo_loss, ipo_loss
from dpo_lib.models import InstructionTokenizer
from dpo_lib.training import train_dpo
from dpo_lib.training.checkpoint import differences, run_identity, trained_weights
from tests.training.runs import CONFIG, Stopped, evaluate_until, new_policy, run


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4])
def test_an_interrupted_run_ends_with_the_same_bits(dataset, tmp_path, stop_at):
    whole, history = run(dataset, evaluate=evaluate_until(0))
    file = tmp_path / "deep" / "run.pt"
    with pytest.raises(Stopped):
        run(dataset, evaluate=evaluate_until(stop_at), checkpoint=file)
    resumed, second = run(dataset, evaluate=evaluate_until(0), checkpoint=file)
    assert fingerprint(resumed) == fingerprint(whole)
    assert second.steps == history.steps
    assert second.evaluations == history.evaluations
    assert [p.name for p in file.parent.iterdir()] == ["run.pt"]


def test_a_checkpoint_of_another_run_is_refused(dataset, tmp_path):
    run(dataset, checkpoint=tmp_path / "run.pt")
    other = dataclasses.replace(CONFIG, seed=3)
    with pytest.raises(ValueError, match=r"of another run: seed was 0, is 3"):
        run(dataset, config=other, checkpoint=tmp_path / "run.pt")


def other_reference(dataset, file):
    policy, reference = new_policy(), make_reference(new_policy())
    reference.final_norm.bias.data += 1
    train_dpo(policy, reference, dataset, CONFIG, checkpoint=file, progress=False)


def other_data(dataset, file):
    run(PreferenceDataset(make_preferences("longer"), InstructionTokenizer()), checkpoint=file)


def other_loss(dataset, file):
    run(dataset, checkpoint=file, loss=functools.partial(dpo_loss, label_smoothing=0.1))


def no_reference(dataset, file):
    train_dpo(new_policy(), None, dataset, CONFIG, checkpoint=file, progress=False)


def test_every_part_of_a_run_has_a_digest_of_its_own(dataset):
    """So that none is missed because another check, of the reference's values say, finds it too."""
    policy = new_policy()
    policy.position_embedding.requires_grad_(False)
    known = run_identity(CONFIG, dpo_loss, dataset, policy, None)

    def changed(config=CONFIG, loss=dpo_loss, data=dataset, model=policy, reference=None):
        found = run_identity(config, loss, data, model, reference)
        return {name for name in known if found[name] != known[name]}

    assert changed() == set()
    for setting in dataclasses.fields(CONFIG):
        if setting.name == "force_dtype":
            continue
        other = copy.copy(CONFIG)
        object.__setattr__(other, setting.name, "another value")
        assert changed(config=other) == {setting.name}
    turned = [dataclasses.replace(r, chosen=r.rejected, rejected=r.chosen) for r in dataset.records]
    swapped = PreferenceDataset(turned, InstructionTokenizer())
    assert changed(data=swapped) == {"data"}
    assert changed(loss=ipo_loss) == {"loss"}
    assert changed(reference=policy) == {"reference"}
    moved = copy.deepcopy(policy)
    with torch.no_grad():
        moved.position_embedding.weight[0] += 1
    assert changed(model=moved) == {"frozen parameters"}
    with torch.no_grad():
        moved.load_state_dict(policy.state_dict())
        moved.final_norm.bias += 1  # in training: it is in the checkpoint
    assert changed(model=moved) == set()
    moved.final_norm.bias = torch.nn.Parameter(torch.zeros(3))
    assert changed(model=moved) == {"trained parameters"}


@pytest.mark.parametrize("other", [other_reference, other_data, other_loss, no_reference])
def test_a_checkpoint_belongs_to_its_data_loss_and_reference(dataset, tmp_path, other):
    loss = functools.partial(dpo_loss, label_smoothing=0.2)
    run(dataset, checkpoint=tmp_path / "run.pt", loss=loss if other is other_loss else dpo_loss)
    with pytest.raises(ValueError, match="of another run"):
        other(dataset, tmp_path / "run.pt")


def test_a_failed_write_leaves_the_old_checkpoint(dataset, tmp_path, monkeypatch):
    file = tmp_path / "run.pt"
    run(dataset, checkpoint=file)
    before = file.read_bytes()

    def broken_save(state, target):
        target.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken_save)
    with pytest.raises(OSError, match="disk full"):
        run(dataset, checkpoint=file)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_only_what_requires_gradients_is_trained_and_kept(dataset, tmp_path):
    def frozen_policy():
        policy = new_policy().requires_grad_(False)
        policy.blocks[0].mlp.requires_grad_(True)
        return policy

    file = tmp_path / "run.pt"
    whole, history = run(dataset, frozen_policy())
    with pytest.raises(Stopped):
        run(dataset, frozen_policy(), evaluate=evaluate_until(3), checkpoint=file)
    kept = torch.load(file, weights_only=True)["policy"]
    assert sorted(kept) == [
        f"blocks.0.mlp.{n}.{part}" for n in (0, 2) for part in ("bias", "weight")
    ]
    other = frozen_policy()
    other.final_norm.bias.data += 1
    with pytest.raises(ValueError, match=r"of another run.*frozen parameters"):
        run(dataset, other, checkpoint=file)
    resumed, second = run(dataset, frozen_policy(), checkpoint=file)
    assert fingerprint(resumed) == fingerprint(whole)
    assert second.steps == history.steps
    still = [name for name, p in whole.named_parameters() if ".mlp." not in name]
    assert fingerprint(whole, still) == fingerprint(new_policy(), still)
    assert fingerprint(whole) != fingerprint(new_policy())


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_named_with_the_remedy(dataset, tmp_path, kept):
    file = tmp_path / "run.pt"
    run(dataset, checkpoint=file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"run\.pt is empty, cut off, .*: delete it .* to train"):
        run(dataset, checkpoint=file)


def test_no_changed_byte_is_taken_for_a_number(dataset, tmp_path):
    file = tmp_path / "run.pt"
    run(dataset, checkpoint=file)
    data, weights = file.read_bytes(), trained_weights(file)
    said = []
    for place in range(0, len(data), len(data) // 97):
        changed = bytes([data[place] ^ 16])
        for damaged in (data[:place], data[:place] + changed + data[place + 1 :]):
            file.write_bytes(damaged)
            try:
                found = trained_weights(file)
            except ValueError as error:
                said.append(str(error))
            else:  # what was changed is not read
                assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert len(said) > 150
    assert len({*said}) == 1
    assert said[0].startswith(f"checkpoint {file} is empty, cut off, damaged")


@pytest.mark.parametrize("content", [{"policy": {}}, {"run": "of a first edition"}, [1.0]])
def test_a_file_that_is_no_checkpoint_is_refused(dataset, tmp_path, content):
    torch.save(content, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        run(dataset, checkpoint=tmp_path / "run.pt")


def test_differences_name_what_changed_and_what_came_and_went():
    assert differences({"a": 1, "b": 2.0}, {"b": 2.0, "a": 1}) == []
    before, now = {"same": 0, "a": 1, "gone": "x"}, {"same": 0, "a": 2, "new": True}
    assert differences(before, now) == [
        "a was 1, is 2",
        "gone was 'x', is None",
        "new was None, is True",
    ]
