"""TRL's trainers and `train_dpo` side by side: the loss of every update, for each loss of both.

One tiny random Llama in float32, the same pairs in the same order, AdamW, no dropout.
"""

import copy
import dataclasses
import functools
import random

import datasets
import pytest
import torch
import trl

from dpo_lib import DPOConfig, get_sequence_log_probs, make_reference, train_dpo
from dpo_lib.data import PreferenceDataset, PreferenceRecord, UnpairedDataset, UnpairedRecord
from dpo_lib.losses import LOSSES

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = 40
PAD, EOS = WORDS, WORDS + 1
BATCH, STEPS = 4, 8
TOLERANCE = 1e-4
CONFIG = DPOConfig(
    learning_rate=3e-3, steps=STEPS, batch_size=BATCH, schedule="linear", eval_every=STEPS
)


# --- one model, one set of pairs, one order ------------------------------------------------------


@functools.cache
def backend():
    """A tokenizer of transformers for words w0 w1 ..., each an id."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(WORDS)} | {"<pad>": PAD, "<eos>": EOS}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="right"
    )


class Words:
    """The same tokenizer for `PreferenceDataset`."""

    pad_id, eos_id = PAD, EOS

    def encode_prompt(self, text):
        return backend()(text)["input_ids"]

    def encode_response(self, text):
        return [*self.encode_prompt(text), EOS]


def new_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS + 2,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that log-probabilities differ from the start
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config).float().eval()


def new_pairs(n=20, prompt_words=(1, 6), chosen_words=(1, 8)):
    """Records of random words; the ranges give the fewest and the most."""
    rng = random.Random(0)

    def text(least, most):
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.randint(least, most)))

    return [
        PreferenceRecord(text(*prompt_words), text(*chosen_words), text(1, 8)) for _ in range(n)
    ]


def in_our_order(dataset, config):
    """Index of every pair that `train_dpo` uses, in the order of use."""
    steps = range(config.steps)
    rows = [dataset.pairs_of_step(i, config.batch_size, config.seed) for i in steps]
    return torch.cat(rows).tolist()


# --- the two runs --------------------------------------------------------------------------------


def our_losses(records, loss, config, policy=None, tokenizer=None):
    policy = policy or new_model()
    dataset = PreferenceDataset(records, tokenizer or Words())
    history = train_dpo(policy, make_reference(policy), dataset, config, loss=loss, progress=False)
    return history.column("loss")


def settings(folder, config, **own):
    """The settings of ours in the words of transformers' trainer."""
    return {
        "output_dir": str(folder),
        "beta": config.beta,
        "learning_rate": config.learning_rate,
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulate,
        "lr_scheduler_type": config.schedule,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        **own,
    }


def record_losses(trainer_class, losses):
    """The trainer, which also writes down each loss: its log rounds them."""

    class Recording(trainer_class):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            return loss

    return Recording


def their_losses(folder, records, config, trainer="DPO", model=None, tokenizer=None, **own):
    """Loss of every update of one of TRL's trainers, on the pairs in our order."""
    from trl.experimental import cpo, orpo

    trainers = {
        "DPO": (trl.DPOTrainer, trl.DPOConfig),
        "KTO": (trl.KTOTrainer, trl.KTOConfig),
        "CPO": (cpo.CPOTrainer, cpo.CPOConfig),
        "ORPO": (orpo.ORPOTrainer, orpo.ORPOConfig),
    }
    trainer_class, config_class = trainers[trainer]
    words = tokenizer or Words()
    dataset = PreferenceDataset(records, words)
    order = in_our_order(dataset, config)
    # A response follows its prompt as it stands: a blank keeps the words of our tokenizer apart.
    blank = " " if tokenizer is None else ""
    rows = [
        {"prompt": r.prompt, "chosen": blank + r.chosen, "rejected": blank + r.rejected}
        for r in (records[i] for i in order)
    ]
    if trainer == "KTO":  # single examples: a batch of pairs is its chosen, then its rejected
        size = config.batch_size
        rows = [
            {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
            for start in range(0, len(rows), size)
            for side in ("chosen", "rejected")
            for row in rows[start : start + size]
        ]
        own["per_device_train_batch_size"] = 2 * size
    model = model or new_model()
    reference = {"ref_model": copy.deepcopy(model)} if trainer in ("DPO", "KTO") else {}
    losses = []
    run = record_losses(trainer_class, losses)(
        model=model,
        args=config_class(**settings(folder, config, **own)),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=backend() if tokenizer is None else tokenizer.backend,
        **reference,
    )
    assert_same_tokens(run.train_dataset, [dataset[i] for i in order], trainer)
    run.train()
    return losses


def assert_same_tokens(theirs, ours, trainer):
    """The trainer's own tokens are those of our data set."""
    if trainer == "KTO":
        ours = [row | {"completion": row[side]} for side in ("chosen", "rejected") for row in ours]
        parts, names = ("prompt", "completion"), "{}_ids"
    elif trainer == "DPO":
        parts, names = ("prompt", "chosen", "rejected"), "{}_ids"
    else:  # CPO and ORPO keep prompt and response together
        parts, names = ("chosen", "rejected"), "{}_input_ids"
        ours = [{side: row["prompt"] + row[side] for side in parts} for row in ours]
    for part in parts:
        assert sorted(theirs[names.format(part)]) == sorted(row[part] for row in ours)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    gaps = [abs(mine - other) for mine, other in zip(ours, theirs, strict=True)]
    assert max(gaps) < TOLERANCE, (
        f"losses part by {max(gaps):.2g} at update {gaps.index(max(gaps))}"
    )
    # The runs must have gone somewhere, or they agree on nothing.
    assert max(abs(loss - ours[0]) for loss in ours) > 50 * TOLERANCE


# --- losses of TRL in our form, where the convention differs --------------------------------------


def ipo_on_means(*logps_and_beta, chosen_lengths, rejected_lengths):
    """TRL's IPO: each log-ratio is divided by its response's length."""
    *logps, beta = logps_and_beta
    lengths = 2 * (chosen_lengths, rejected_lengths)
    means = [x / n for x, n in zip(logps, lengths, strict=True)]
    return LOSSES["ipo"](*means, beta)


def on_a_flat_reference(loss, policy_chosen, policy_rejected, *reference_and_beta, **options):
    """A loss of CPO, which knows no reference."""
    flat = torch.zeros_like(policy_chosen), torch.zeros_like(policy_rejected)
    return loss(policy_chosen, policy_rejected, *flat, reference_and_beta[-1], **options)


# --- the comparisons -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "beta", "theirs"),
    [
        ("dpo", 0.1, {"loss_type": ["sigmoid"]}),
        ("dpo", 1.0, {"loss_type": ["sigmoid"]}),
        ("hinge", 0.5, {"loss_type": ["hinge"]}),
        ("robust_dpo", 0.3, {"loss_type": ["robust"], "label_smoothing": 0.1}),
        ("length_normalized_dpo", 2.0, {"loss_type": ["sigmoid_norm"]}),
        (ipo_on_means, 0.5, {"loss_type": ["ipo"]}),
    ],
)
def test_dpo_trainer(tmp_path, loss, beta, theirs):
    config = dataclasses.replace(CONFIG, beta=beta)
    records = new_pairs()
    assert_same(
        our_losses(records, loss, config), their_losses(tmp_path, records, config, **theirs)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "constant", "learning_rate": 1e-3},
        {"schedule": "cosine", "learning_rate": 1e-3},
        {"weight_decay": 10.0},
        {"max_grad_norm": 1e-6},
    ],
    ids=str,
)
def test_settings_mean_the_same(tmp_path, change):
    config = dataclasses.replace(CONFIG, **change)
    records = new_pairs()
    ours = our_losses(records, "dpo", config)
    assert_same(ours, their_losses(tmp_path, records, config, loss_type=["sigmoid"]))
    unchanged = our_losses(records, "dpo", CONFIG)
    gaps = [abs(a - b) for a, b in zip(ours, unchanged, strict=True)]
    assert max(gaps) > 10 * TOLERANCE  # the setting matters here


def test_rpo_with_chosen_responses_of_one_length(tmp_path):
    """TRL's fine-tuning term is a mean over the tokens of the batch, ours over each response's."""
    records = new_pairs(chosen_words=(4, 4))
    theirs = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 1.0]}
    assert_same(
        our_losses(records, "rpo", CONFIG), their_losses(tmp_path, records, CONFIG, **theirs)
    )


@pytest.mark.parametrize(
    ("loss", "beta", "theirs"),
    [
        ("simpo", 2.0, {"loss_type": "simpo", "simpo_gamma": 1.0}),
        ("naive", 0.3, {"loss_type": "sigmoid"}),
        ("cdpo", 0.3, {"loss_type": "sigmoid", "label_smoothing": 0.1}),
    ],
)
def test_cpo_trainer(tmp_path, loss, beta, theirs):
    """TRL smooths labels only here; cDPO is compared against a flat reference."""
    config = dataclasses.replace(CONFIG, beta=beta)
    records = new_pairs()
    ours = functools.partial(on_a_flat_reference, LOSSES["cdpo"]) if loss == "cdpo" else loss
    theirs = their_losses(tmp_path, records, config, "CPO", cpo_alpha=0.0, **theirs)
    assert_same(our_losses(records, ours, config), theirs)


def test_orpo_trainer_where_its_fine_tuning_term_is_ours(tmp_path):
    """TRL fine-tunes on prompt and response, by the mean over the tokens of the batch.

    A prompt of one token has none to predict, and chosen responses of one length make the two
    means equal.
    """
    records = new_pairs(prompt_words=(1, 1), chosen_words=(4, 4))
    theirs = their_losses(tmp_path, records, CONFIG, "ORPO")
    assert_same(our_losses(records, "orpo", CONFIG), theirs)


def test_kto_trainer_at_level_0(tmp_path):
    records = new_pairs()
    theirs = their_losses(tmp_path, records, CONFIG, "KTO", loss_type="apo_zero_unpaired")
    ours = functools.partial(LOSSES["kto"], kl=0.0)
    assert_same(our_losses(records, ours, CONFIG), theirs)


def test_kto_trainer_at_its_own_level(tmp_path):
    """The level from responses under wrong prompts, computed here by our log-probabilities."""
    config = dataclasses.replace(CONFIG, beta=0.5)
    records, policy = new_pairs(), new_model()
    reference = make_reference(policy)
    dataset = PreferenceDataset(records, Words())
    levels = []

    def kto_at_their_level(*logps_and_beta):
        # Called twice an update, for the loss and for the history, with the same parameters.
        step = len(levels) // 2
        pairs = dataset.pairs_of_step(step, config.batch_size, config.seed).tolist()
        examples = [
            (dataset[i]["prompt"], dataset[i][side])
            for side in ("chosen", "rejected")
            for i in pairs
        ]
        prompts, responses = zip(*examples, strict=True)
        shifted = (responses[-1], *responses[:-1])  # each under the prompt of the next example
        rows = [
            {"prompt": p, "chosen": y, "rejected": y} for p, y in zip(prompts, shifted, strict=True)
        ]
        batch = dataset.collate(rows)
        with torch.no_grad():
            logps = [
                get_sequence_log_probs(
                    model,
                    batch["prompt"],
                    batch["chosen"],
                    batch["prompt_mask"],
                    batch["chosen_mask"],
                )
                for model in (policy, reference)
            ]
        levels.append((logps[0] - logps[1]).mean().clamp(min=0))
        return LOSSES["kto"](*logps_and_beta, kl=levels[-1])

    ours = our_losses(records, kto_at_their_level, config, policy=policy)
    theirs = their_losses(tmp_path, records, config, "KTO", loss_type="kto")
    assert_same(ours, theirs)
    assert max(levels) > 0.1  # it was not always cut off at 0


def test_kto_trainer_on_thumbs(tmp_path):
    """`train_dpo` on thumbs, with the mismatched responses that TRL takes: of the next example."""
    config = dataclasses.replace(CONFIG, beta=0.5)
    records, words, size = new_pairs(), Words(), 2 * BATCH
    theirs = their_losses(tmp_path, records, config, "KTO", loss_type="kto")
    pairs = PreferenceDataset(records, words)
    order, rows = in_our_order(pairs, config), []
    for start in range(0, len(order), BATCH):
        batch = [
            {"prompt": pairs[i]["prompt"], "response": pairs[i][side], "desirable": up}
            for side, up in (("chosen", True), ("rejected", False))
            for i in order[start : start + BATCH]
        ]
        rows += [
            {**row, "mismatched": before["response"]}
            for row, before in zip(batch, [batch[-1], *batch[:-1]], strict=True)
        ]

    class InOrder(UnpairedDataset):
        def pairs_of_step(self, step, batch_size, seed):
            return torch.arange(step * batch_size, (step + 1) * batch_size)

    thumbs = InOrder([UnpairedRecord("a", "b", True)] * len(rows), words, rows)
    policy = new_model()
    history = train_dpo(
        policy,
        make_reference(policy),
        thumbs,
        dataclasses.replace(config, batch_size=size),
        loss="kto",
        progress=False,
    )
    assert_same(history.column("loss"), theirs)
    assert max(history.column("level")) > 0.1


# --- a real model ---------------------------------------------------------------------------------

QUESTIONS = [
    ("Name a color.", "Red is a color.", "Color names are a wide field."),
    ("What is 2 + 2?", "4.", "It may be 5, but nobody can tell for sure."),
    ("Say hello.", "Hello! What can I do for you?", "No."),
    ("Is ice cold?", "Yes, ice is cold.", "Ice."),
    ("Which animal barks?", "A dog barks.", "A cat barks at night."),
    ("Count to three.", "One, two, three.", "Three, two, and so on."),
]


@pytest.fixture(scope="module")
def smollm2():
    from dpo_lib.models.pretrained import load_pretrained

    return load_pretrained("smollm2", dtype=torch.float32)


def test_three_updates_of_a_real_model(tmp_path, smollm2):
    """SmolLM2-135M in float32. Prompts are given to TRL as the text that the template makes."""
    config = DPOConfig(learning_rate=1e-5, steps=3, batch_size=2, beta=0.1, eval_every=3)
    tokenizer = smollm2.tokenizer

    class Plain:
        """Takes the prompt as text, which already is in the template."""

        backend, pad_id, eos_id = tokenizer.backend, tokenizer.pad_id, tokenizer.eos_id

        def encode_prompt(self, text):
            return self.backend(text)["input_ids"]

        def encode_response(self, text):
            return tokenizer.encode_response(text)

    prompts = [tokenizer.backend.decode(tokenizer.encode_prompt(q)) for q, _, _ in QUESTIONS]
    records = [
        PreferenceRecord(prompt, *answers)
        for prompt, (_, *answers) in zip(prompts, QUESTIONS, strict=True)
    ]
    ours = our_losses(records, "dpo", config, copy.deepcopy(smollm2.model), Plain())
    theirs = their_losses(
        tmp_path,
        records,
        config,
        model=copy.deepcopy(smollm2.model),
        tokenizer=Plain(),
        loss_type=["sigmoid"],
    )
    assert_same(ours, theirs)


def test_trl_also_scores_the_newline_behind_a_turn(tmp_path, smollm2):
    """From messages TRL renders the whole turn, whose template puts a newline behind the end.

    So its chosen and rejected responses have one more token than ours, which end with the turn.
    """
    tokenizer = smollm2.tokenizer
    question, chosen, rejected = QUESTIONS[0]
    row = {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }
    trainer = trl.DPOTrainer(
        model=new_model(),
        ref_model=new_model(),
        args=trl.DPOConfig(**settings(tmp_path, CONFIG)),
        train_dataset=datasets.Dataset.from_list([row]),
        processing_class=copy.deepcopy(tokenizer.backend),
    )
    theirs = trainer.train_dataset[0]
    newline = tokenizer.backend.encode("\n", add_special_tokens=False)
    assert theirs["prompt_ids"] == tokenizer.encode_prompt(question)
    assert theirs["chosen_ids"] == tokenizer.encode_response(chosen) + newline
    assert theirs["rejected_ids"] == tokenizer.encode_response(rejected) + newline
