"""The tiny GPT against independent arithmetic, its tokenizers, the sampler and the weights."""

import hashlib
import importlib.util
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo_lib.data import pad
from dpo_lib.logprobs import get_sequence_log_probs
from dpo_lib.models import (
    InstructionTokenizer,
    TinyGPT,
    TinyGPTConfig,
    WordTokenizer,
    checkpoints,
    load_base,
    load_sft,
    respond,
    sample,
    training_record,
)
from dpo_lib.models.checkpoints import WEIGHTS, save_weights
from dpo_lib.world import world_tokenizer
from tests.helpers import deterministic


def make_model(vocab_size=11, seed=0, scale=8.0, **sizes):
    """A float64 model whose logits are spread out: the initial 0.02 would hide mistakes."""
    torch.manual_seed(seed)
    model = TinyGPT(TinyGPTConfig(vocab_size, **{"context_length": 12, "width": 8, **sizes}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model.double().eval()


def flatten(tree, prefix=""):
    """(path, number) pairs of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.fixture(scope="module")
def trainer():
    path = Path(__file__).parents[2] / "tools" / "train_models.py"
    spec = importlib.util.spec_from_file_location("train_models", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestTinyGPT:
    def test_attention_is_softmax_of_scaled_products_over_the_past(self):
        model = make_model(heads=2)
        attention = model.blocks[0].attention
        x = torch.randn(3, 5, 8, dtype=torch.float64)
        q, k, v = attention.query_key_value(x).split(8, dim=-1)
        gathered = torch.zeros_like(x)
        for b in range(3):
            for head in (slice(0, 4), slice(4, 8)):
                for t in range(5):
                    scores = k[b, : t + 1, head] @ q[b, t, head] / 4**0.5
                    gathered[b, t, head] = scores.softmax(dim=0) @ v[b, : t + 1, head]
        torch.testing.assert_close(attention(x, None), attention.output(gathered))

    def test_logits_do_not_depend_on_later_tokens(self):
        model = make_model()
        tokens = torch.randint(11, (2, 9))
        changed = tokens.clone()
        changed[:, 5:] = (changed[:, 5:] + 1) % 11
        before, after = model(tokens), model(changed)
        torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-12)
        assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=-1).min() > 1e-3

    @pytest.mark.parametrize("give_positions", [True, False])
    def test_padding_on_the_left_changes_nothing(self, give_positions):
        model = make_model()
        rows = [[3, 1, 4], [1, 5, 9, 2, 6, 5], [7], [2, 2, 8, 1]]
        tokens, mask = pad(rows, 10, "left")
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0) if give_positions else None
        logits = model(tokens, attention_mask=mask, position_ids=positions)
        assert torch.isfinite(logits).all()
        for row, padded in zip(rows, logits, strict=True):
            torch.testing.assert_close(padded[-len(row) :], model(torch.tensor([row]))[0])

    def test_mask_of_ones_changes_nothing(self):
        model = make_model()
        tokens = torch.randint(11, (2, 9))
        torch.testing.assert_close(model(tokens, torch.ones_like(tokens)), model(tokens))

    def test_log_probs_of_a_padded_batch_are_those_of_single_rows(self):
        model = make_model()
        prompts, responses = [[3, 1, 4], [5], [9, 2]], [[1], [2, 7, 1], [8, 1]]
        (x, xm), (y, ym) = pad(prompts, 0, "left"), pad(responses, 0, "right")
        alone = [
            get_sequence_log_probs(model, torch.tensor([p]), torch.tensor([r]))
            for p, r in zip(prompts, responses, strict=True)
        ]
        torch.testing.assert_close(get_sequence_log_probs(model, x, y, xm, ym), torch.cat(alone))

    def test_gradients_are_finite_with_padding(self):
        model = make_model()
        tokens, mask = pad([[3, 1, 4], [1]], 10, "left")
        model(tokens, mask)[:, -1].logsumexp(dim=-1).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())

    def test_embeds_and_scores_with_one_matrix(self):
        names = [name for name, _ in make_model().named_parameters()]
        assert sum("embedding" in name for name in names) == 2  # tokens and positions
        assert not any("head" in name for name in names)

    def test_dropout_acts_in_training_only(self):
        model = make_model(dropout=0.5)
        tokens = torch.randint(11, (2, 9))
        torch.testing.assert_close(model(tokens), model(tokens), rtol=0, atol=0)
        model.train()
        assert (model(tokens) - model(tokens)).abs().max() > 1e-3

    def test_new_model_is_close_to_uniform(self):
        torch.manual_seed(0)
        model = TinyGPT(TinyGPTConfig(50))
        spread = model(torch.randint(50, (4, 20))).log_softmax(dim=-1)
        assert (spread - torch.log(torch.tensor(1 / 50))).abs().max() < 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"tokens": torch.zeros(3, dtype=torch.long)}, r"tokens must have shape .* \(3,\)"),
            ({"tokens": torch.zeros(1, 0, dtype=torch.long)}, r"tokens must have shape"),
            ({"tokens": torch.tensor([[1, 11]])}, r"tokens must lie in \[0, 11\), got 1 to 11"),
            ({"tokens": torch.tensor([[-1, 2]])}, r"tokens .* got -1 to 2"),
            ({"tokens": torch.ones(1, 13, dtype=torch.long)}, "13 positions, context_length is 12"),
            (
                {"tokens": torch.ones(1, 3).long(), "attention_mask": torch.ones(1, 2)},
                r"attention_mask .*\(1, 3\), got \(1, 2\)",
            ),
            (
                {"tokens": torch.ones(1, 2).long(), "position_ids": torch.tensor([[0, 12]])},
                r"position_ids must lie in \[0, 12\), got 0 to 12",
            ),
        ],
    )
    def test_bad_input_is_named(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            make_model()(**arguments)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
            ({"vocab_size": 5, "width": 10, "heads": 3}, "heads must divide width, got 3 and 10"),
            ({"vocab_size": 5, "dropout": 1.0}, "dropout must lie in"),
        ],
    )
    def test_bad_sizes_are_named(self, sizes, message):
        with pytest.raises(ValueError, match=message):
            TinyGPTConfig(**sizes)


class TestWordTokenizer:
    tokenizer = WordTokenizer(
        ["The", "capital", "of", "Earth's", "is", ".", ",", "?", "A)", "+", "2"]
    )

    @pytest.mark.parametrize(
        "text", ["The capital of Earth's is.", "2 + 2?", "is A) The, A) capital", "", ". . , ?"]
    )
    def test_joins_marks_to_words(self, text):
        assert self.tokenizer.decode(self.tokenizer.encode(text)).replace(" ", "") == text.replace(
            " ", ""
        )
        if ". ." not in text:
            assert self.tokenizer.decode(self.tokenizer.encode(text)) == text

    @deterministic
    @given(st.lists(st.integers(0, len(world_tokenizer()) - 1), max_size=30))
    def test_any_tokens_survive_text(self, ids):
        text = world_tokenizer().decode(ids, keep_specials=True)
        assert world_tokenizer().encode(text) == ids

    def test_response_ends_with_eos(self):
        ids = self.tokenizer.encode_response("The capital.")
        assert ids[-1] == self.tokenizer.eos_id
        assert ids[:-1] == self.tokenizer.encode_prompt("The capital.")
        assert self.tokenizer.decode([0, *ids]) == "The capital."
        assert self.tokenizer.decode(ids, keep_specials=True) == "The capital. <eos>"

    def test_unknown_words_are_named(self):
        with pytest.raises(ValueError, match=r"outside the vocabulary: \['Lyon', '3'\]"):
            self.tokenizer.encode("The Lyon is 3.")
        with pytest.raises(ValueError, match="got 99"):
            self.tokenizer.decode([99])

    @pytest.mark.parametrize("words", [["a", "a"], ["two words"], [""], ["<eos>"]])
    def test_words_must_be_distinct_single_tokens(self, words):
        with pytest.raises(ValueError, match="words must be"):
            WordTokenizer(words)


class TestInstructionTokenizer:
    tokenizer = InstructionTokenizer()

    @deterministic
    @given(st.text())
    def test_any_text_survives(self, text):
        assert self.tokenizer.decode(self.tokenizer.encode_prompt(text)) == text
        assert self.tokenizer.decode(self.tokenizer.encode_response(text)) == text

    def test_layout(self):
        assert self.tokenizer.encode_prompt("Hi") == [256, 72, 105, 257]
        assert self.tokenizer.encode_response("é") == [0xC3, 0xA9, 258]
        assert self.tokenizer.pad_id == 259
        assert len(self.tokenizer) == 260
        assert self.tokenizer.decode([256, 72, 257, 259, 258], keep_specials=True) == (
            "<inst>H<resp><pad><eos>"
        )

    def test_broken_bytes_and_bad_ids(self):
        assert self.tokenizer.decode([72, 0xC3]) == "H\ufffd"
        with pytest.raises(ValueError, match="got 260"):
            self.tokenizer.decode([260])


class TestSample:
    def draw(self, model, prompt, **options):
        options = {
            "eos_id": 1,
            "pad_id": 0,
            "generator": torch.Generator().manual_seed(0),
            **options,
        }
        return sample(model, prompt, **options)

    def test_frequencies_are_the_models_probabilities(self):
        model = make_model(vocab_size=5, scale=4.0)
        prompt = torch.tensor([[2, 3]]).repeat(20_000, 1)
        first = self.draw(model, prompt, max_new_tokens=1).tokens[:, 0]
        wanted = model(prompt[:1])[0, -1].softmax(dim=-1)
        found = first.bincount(minlength=5) / len(first)
        assert (found - wanted).abs().max() < 4 * 0.5 / len(first) ** 0.5

    def test_temperature_and_top_k_reshape_the_distribution(self):
        model = make_model(vocab_size=5, scale=4.0)
        prompt = torch.tensor([[2, 3]]).repeat(20_000, 1)
        first = self.draw(model, prompt, max_new_tokens=1, temperature=2.0, top_k=3).tokens[:, 0]
        logits = model(prompt[:1])[0, -1] / 2
        kept = logits.topk(3).indices
        wanted = torch.zeros(5, dtype=torch.float64)
        wanted[kept] = logits[kept].softmax(dim=0)
        found = first.bincount(minlength=5) / len(first)
        assert set(first.tolist()) == set(kept.tolist())
        assert (found - wanted).abs().max() < 4 * 0.5 / len(first) ** 0.5

    def test_greedy_takes_the_likeliest_token_each_time(self):
        model = make_model()
        tokens = torch.tensor([[2, 3]])
        drawn = self.draw(model, tokens, max_new_tokens=5, temperature=0, eos_id=-1).tokens
        for step in range(5):
            likeliest = model(tokens)[:, -1].argmax(dim=-1)
            assert drawn[0, step] == likeliest
            tokens = torch.cat([tokens, likeliest[:, None]], dim=1)
        torch.testing.assert_close(
            drawn, self.draw(model, tokens[:, :2], max_new_tokens=5, top_k=1, eos_id=-1).tokens
        )

    def test_stops_at_eos_and_pads_after_it(self):
        model = make_model(vocab_size=4)
        out = self.draw(model, torch.full((200, 2), 2), max_new_tokens=6)
        assert 0 < out.finished.sum() < 200
        for tokens, mask, finished in zip(*out, strict=True):
            length = int(mask.sum())
            assert mask[:length].all()
            assert (tokens[length:] == 0).all()
            assert (tokens[: length - 1] != 1).all()
            assert (tokens[length - 1] == 1) == finished
            assert finished or length == 6

    def test_left_padding_does_not_change_what_is_drawn(self):
        model = make_model()
        tokens, mask = pad([[3, 1, 4], [5]], 0, "left")
        together = self.draw(model, tokens, prompt_mask=mask, temperature=0, max_new_tokens=5)
        for i, row in enumerate([[3, 1, 4], [5]]):
            alone = self.draw(model, torch.tensor([row]), temperature=0, max_new_tokens=5)
            length = int(alone.mask.sum())
            assert together.tokens[i, :length].tolist() == alone.tokens[0].tolist()

    def test_with_a_generator_each_what_is_drawn_does_not_depend_on_the_others(self):
        model, rows = make_model(vocab_size=4), [[3, 2, 3], [2], [3, 2], [2]]
        generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
        tokens, mask = pad(rows, 0, "left")
        together = self.draw(
            model, tokens, prompt_mask=mask, max_new_tokens=9, generator=generators
        )
        lengths = together.mask.sum(dim=1).tolist()
        assert min(lengths) < max(lengths)  # some went on after others had ended
        for i, row in enumerate(rows):
            alone = self.draw(
                model,
                torch.tensor([row]),
                max_new_tokens=9,
                generator=torch.Generator().manual_seed(i),
            )
            assert together.tokens[i, : lengths[i]].tolist() == alone.tokens[0].tolist()

    def test_same_seed_same_draws(self):
        model, prompt = make_model(), torch.full((20, 2), 2)
        first, second = (self.draw(model, prompt, max_new_tokens=4) for _ in range(2))
        assert torch.equal(first.tokens, second.tokens)

    def test_accepts_objects_with_logits(self):
        model = make_model()

        def wrapped(tokens, attention_mask, position_ids):
            class Output:
                logits = model(tokens, attention_mask, position_ids)

            return Output

        prompt = torch.full((3, 2), 2)
        first, second = (self.draw(m, prompt, max_new_tokens=4).tokens for m in (wrapped, model))
        assert torch.equal(first, second)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": -1.0}, "temperature .* got -1.0"),
            ({"top_k": 0}, "top_k must be at least 1, got 0"),
            ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
            ({"prompt_mask": torch.ones(1, 3)}, r"prompt_mask .* got \(1, 3\)"),
            ({"generator": [torch.Generator()] * 2}, "one for each of 1 prompts, got 2"),
        ],
    )
    def test_bad_options_are_named(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.draw(make_model(), torch.full((1, 2), 2), **options)


class TestCommittedWeights:
    def test_small_and_recorded(self):
        record = training_record()
        files = {name: (WEIGHTS / f"{name}.safetensors").read_bytes() for name in ("base", "sft")}
        assert sum(map(len, files.values())) <= 2_000_000
        for name, content in files.items():
            assert hashlib.sha256(content).hexdigest() == record[name]["sha256"]
        assert record["config"]["vocab_size"] == len(world_tokenizer())

    @pytest.mark.parametrize("damage", [lambda d: d[:-9], lambda d: d[:-1] + b"!", lambda d: b""])
    def test_a_damaged_file_is_named_with_the_remedy(self, tmp_path, monkeypatch, damage):
        data = (WEIGHTS / "sft.safetensors").read_bytes()
        (tmp_path / "sft.safetensors").write_bytes(damage(data))
        training_record()
        monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
        with pytest.raises(ValueError, match=r"sft\.safetensors is damaged.*again$"):
            load_sft()

    def test_dtype_and_mode(self):
        assert load_base().token_embedding.weight.dtype == torch.float64
        assert load_sft(torch.float32).token_embedding.weight.dtype == torch.float32
        assert not load_sft().training
        with pytest.raises(ValueError, match="dtype must be a floating type"):
            load_sft(torch.int64)

    def test_loading_twice_gives_independent_models(self):
        first, second = load_sft(), load_sft()
        with torch.no_grad():
            first.token_embedding.weight.zero_()
        assert second.token_embedding.weight.abs().max() > 0

    def test_saved_weights_are_read_back(self, tmp_path):
        from safetensors.torch import load_file

        model = make_model()
        path = save_weights(model, "any", tmp_path)
        for name, value in load_file(path).items():
            torch.testing.assert_close(value, model.state_dict()[name].float(), rtol=0, atol=0)
        assert [p.name for p in tmp_path.iterdir()] == ["any.safetensors"]

    @pytest.mark.parametrize("name", ["base", "sft"])
    def test_metrics_are_those_recorded(self, trainer, name):
        record = training_record()[name]
        model, rows, measure = {
            "base": (load_base(), trainer.base_rows, trainer.measure_base),
            "sft": (load_sft(), trainer.sft_rows, trainer.measure_sft),
        }[name]
        assert record["settings"] == vars(getattr(trainer, name.upper()))
        held_out = rows(500, record["settings"]["seed"] + 2)
        assert trainer.nll_per_token(model, held_out) == pytest.approx(record["held_out_nll"], 1e-9)
        for (name, found), (_, kept) in zip(
            flatten(measure(model)), flatten(record["samples"]), strict=True
        ):
            assert found == pytest.approx(kept, abs=1e-9), name

    def test_learned_far_more_than_word_counts(self):
        record = training_record()
        for name in ("base", "sft"):
            assert record[name]["held_out_nll"] < 0.4 * record[name]["unigram_nll"]

    def test_reduced_training_learns(self, trainer):
        sizes = TinyGPTConfig(len(world_tokenizer()), width=16, layers=1)
        base = replace(trainer.BASE, texts=2000, steps=120, batch_size=32, learning_rate=1e-2)
        sft = replace(trainer.SFT, texts=1000, steps=60, batch_size=32, learning_rate=1e-2)
        _, _, first = trainer.train_and_measure(sizes, base, sft)
        for name in ("base", "sft"):
            assert first[name]["held_out_nll"] < 0.65 * first[name]["unigram_nll"]
            assert first[name]["held_out_nll"] < 0.5 * first["uniform_nll"]


class TestWhatTheModelsDo:
    """The facts that chapter 1 rests on."""

    def test_base_continues_the_seasons_question_with_a_quiz(self):
        asked = ["What is the primary cause of Earth's seasons?"] * 200
        replies = [reply.text for reply in respond(load_base(), world_tokenizer(), asked, 32)]
        quiz = (
            "A) distance from the Sun B) axial tilt C) rotation speed D) ocean currents and winds"
        )
        starts = Counter(text[: len(quiz)] for text in replies)
        assert starts.most_common(1)[0][0] == quiz
        assert starts[quiz] > 0.4 * len(asked)

    def test_sft_answers_where_base_does_not(self):
        samples = {name: training_record()[name]["samples"] for name in ("base", "sft")}
        assert samples["base"]["right_answer_share"] < 0.1
        assert samples["base"]["quiz_share"] + samples["base"]["further_question_share"] > 0.7
        assert samples["sft"]["preferences"]["correct_share"] > 0.4
        assert samples["sft"]["preferences"]["malformed_share"] < 0.05
        assert 0.7 < samples["sft"]["preferences"]["true_reward"] < 1.4
