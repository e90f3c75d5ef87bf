"""The tiny world: its texts can be read by its tokenizer, and its truth says what it should."""

from collections import Counter
from statistics import mean

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from dpo_lib.data import PreferenceDataset
from dpo_lib.evaluation import evaluate_samples
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import dpo_loss
from dpo_lib.models import load_sft
from dpo_lib.world import (
    SEASONS_QUESTION,
    Pair,
    all_prompts,
    base_documents,
    demonstrations,
    find_prompt,
    judge,
    label_both_ways,
    label_by_correctness,
    label_by_reward,
    load_pairs,
    on_policy_pairs,
    preference_prompts,
    prompts_of,
    split_by_length,
    true_reward,
    world_tokenizer,
    write_pairs,
)
from dpo_lib.world.corpus import DOCUMENT_SHARES
from tests.helpers import deterministic

FRANCE, ORDER = "What is the capital of France?", "My order is late."


class TestTexts:
    def test_every_text_is_in_the_vocabulary_and_survives(self):
        tokenizer = world_tokenizer()
        texts = [p.text for p in all_prompts()] + base_documents(2000, 0)
        texts += [text for pair in demonstrations(2000, 0) for text in pair]
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == text

    def test_every_word_is_used(self):
        tokenizer = world_tokenizer()
        texts = base_documents(6000, 0) + [t for pair in demonstrations(3000, 0) for t in pair]
        used = {i for text in texts for i in tokenizer.encode(text)}
        assert [w for i, w in enumerate(tokenizer.words[2:], start=2) if i not in used] == []

    def test_prompts_are_distinct_and_found(self):
        assert len({p.text for p in all_prompts()}) == len(all_prompts())
        assert all(find_prompt(p.text) == p for p in all_prompts())
        assert find_prompt(SEASONS_QUESTION).family == "cause"
        assert find_prompt("What is love?") is None
        with pytest.raises(ValueError, match=r"got \['poems'\]"):
            prompts_of("capital", "poems")

    def test_shares_of_documents_sum_to_one(self):
        assert sum(DOCUMENT_SHARES.values()) == pytest.approx(1)

    def test_questions_meet_quizzes_and_questions_more_than_answers(self):
        documents = [d for d in base_documents(5000, 0) if d.startswith(SEASONS_QUESTION)]
        after = [d.removeprefix(SEASONS_QUESTION).strip() for d in documents]
        kinds = Counter(
            "quiz" if a.startswith("A)") else "question" if a.startswith("What") else "else"
            for a in after
        )
        assert kinds["quiz"] + kinds["question"] > 0.8 * len(after)

    def test_texts_depend_on_the_seed_only(self):
        assert base_documents(50, 3) == base_documents(50, 3) != base_documents(50, 4)
        assert demonstrations(50, 3) == demonstrations(50, 3) != demonstrations(50, 4)

    def test_demonstrations_are_well_formed_and_imperfect(self):
        judged = [judge(*pair) for pair in demonstrations(3000, 0)]
        assert not any(j.malformed for j in judged)
        assert 0.4 < mean(j.correct for j in judged) < 0.6


class TestReward:
    @pytest.mark.parametrize(
        ("prompt", "response", "reward"),
        [
            (FRANCE, "Paris.", 2.0),
            (FRANCE, "It is Paris.", 2.0),
            (FRANCE, "The capital of France is Paris.", 2.5),
            (FRANCE, "Paris is the capital of France.", 2.5),
            (FRANCE, "Thank you for asking. Paris is the capital of France.", 2.75),
            (FRANCE, "That is an interesting question. Paris.", 1.75),
            (FRANCE, "I am sorry. Paris.", 1.75),  # kind, but not to a question
            (FRANCE, "Paris. Paris.", 1.5),
            (FRANCE, "Paris. Paris. Paris.", 1.0),
            (FRANCE, "Lyon.", -0.5),
            (FRANCE, "Paris. Rome.", -0.5),
            (FRANCE, "Rome is the capital of Italy.", -0.5),  # true, but not what was asked
            (FRANCE, "4.", -0.5),
            (FRANCE, "I do not know.", -0.25),
            (FRANCE, "is Paris.", -1.0),
            (FRANCE, "Paris", -1.0),
            (FRANCE, "Paris is is.", -1.0),
            (FRANCE, "", -1.0),
            ("The capital of France", "is Paris.", 2.5),
            ("The capital of France", "is Lyon.", -0.5),
            ("The capital of France", "Paris.", -1.0),
            ("What is 2 + 2?", "4.", 2.0),
            ("What is 2 + 2?", "2 + 2 is 4.", 2.5),
            ("What is 2 + 2?", "1 + 3 is 4.", -0.5),
            ("What is 2 + 2?", "5.", -0.5),
            ("List three colors.", "red, green and blue.", 2.0),
            ("List three colors.", "Three colors are red, green and blue.", 2.5),
            ("List three colors.", "Two colors are red and green.", -0.5),
            ("List three colors.", "red, red and blue.", -0.5),
            ("List three colors.", "red, cat and blue.", -0.5),
            ("List two colors.", "red and blue.", 2.0),
            ("List two colors.", "red blue.", -1.0),
            (ORDER, "I will track your order.", 2.5),
            (ORDER, "I am sorry. I will track your order today.", 3.5),
            # … nor is this to a complaint
            (ORDER, "Thank you for asking. I will track your order.", 2.25),
            (ORDER, "I will refund your order.", -0.5),
            (ORDER, "I will track your lamp.", -0.5),
            (ORDER, "I am sorry.", 1.0),
            (ORDER, "I am sorry. I am sorry.", 0.5),
            (ORDER, "Please wait.", -0.25),
            (ORDER, "That is not my problem.", -1.0),
            (SEASONS_QUESTION, "axial tilt.", 2.0),
            (SEASONS_QUESTION, "axial tilt causes Earth's seasons.", 2.5),
            (SEASONS_QUESTION, "The primary cause of tides is the Moon's pull.", -0.5),
            (SEASONS_QUESTION, "distance from the Sun.", -0.5),
            (SEASONS_QUESTION, "A) distance from the Sun B) axial tilt", -1.0),
            ("What is love?", "I do not know.", -0.25),
            ("What is love?", "Paris.", -0.5),
        ],
    )
    def test_cases(self, prompt, response, reward):
        assert true_reward(prompt, response) == reward

    def test_unfinished_is_malformed(self):
        assert judge(FRANCE, "Paris.", finished=False) == (-1.0, False, True, 1)

    @deterministic
    @given(st.text(), st.text())
    def test_total_on_any_text(self, prompt, response):
        assert isinstance(true_reward(prompt, response), float)

    @deterministic
    @given(
        st.sampled_from(all_prompts()),
        st.lists(st.integers(2, len(world_tokenizer()) - 1), max_size=24),
    )
    def test_total_and_bounded_on_the_worlds_own_words(self, prompt, ids):
        judgment = judge(prompt.text, world_tokenizer().decode(ids))
        assert -15 < judgment.reward <= 3.5
        assert not (judgment.malformed and judgment.correct)

    def test_every_prompt_can_be_answered_right(self):
        found = {p for p, response in demonstrations(20_000, 1) if judge(p, response).correct}
        assert found == {p.text for p in all_prompts()}


class TestPairs:
    pairs = load_pairs()

    def test_about_requests_only_and_never_sums(self):
        prompts = {pair.prompt for pair in self.pairs}
        assert prompts == set(preference_prompts())
        assert {find_prompt(p).family for p in prompts} == {"capital", "list", "support", "cause"}
        assert all(pair.first != pair.second and pair.first and pair.second for pair in self.pairs)
        assert 700 < len(self.pairs) < 850

    def test_committed_pairs_are_samples_of_the_committed_model(self):
        some = preference_prompts()[::20]
        again = on_policy_pairs(load_sft(), some, per_prompt=2, seed=5)
        assert len(again) == 2 * len(some)
        assert on_policy_pairs(load_sft()) == self.pairs

    def test_written_pairs_are_read_back(self, tmp_path):
        write_pairs(self.pairs[:5], tmp_path / "p.jsonl")
        assert load_pairs(tmp_path / "p.jsonl") == self.pairs[:5]

    def test_reward_labels_follow_bradley_terry(self):
        pair = Pair(ORDER, "I am sorry.", "Please wait.")  # rewards 1.0 and -0.25
        records = label_by_reward([pair] * 20_000, seed=0)
        share = mean(record.chosen == pair.first for record in records)
        assert share == pytest.approx(1 / (1 + 2.718281828**-1.25), abs=0.012)
        assert label_by_reward(self.pairs, 1) == label_by_reward(self.pairs, 1)
        assert label_by_reward(self.pairs, 1) != label_by_reward(self.pairs, 2)

    def test_both_ways_carries_no_preference(self):
        records = label_both_ways(self.pairs)
        assert len(records) == 2 * len(self.pairs)
        wins = Counter((r.prompt, r.chosen, r.rejected) for r in records)
        assert all(wins[p, a, b] == wins[p, b, a] for p, a, b in wins)

    def test_correctness_labels(self):
        records = label_by_correctness(self.pairs)
        assert 200 < len(records) < len(self.pairs)
        for record in records:
            assert judge(record.prompt, record.chosen).correct
            assert not judge(record.prompt, record.rejected).correct

    def test_split_by_length(self):
        records = label_by_reward(self.pairs, 0)
        longer, shorter = split_by_length(records)
        size = lambda text: len(world_tokenizer().encode(text))  # noqa: E731
        assert all(size(r.chosen) > size(r.rejected) for r in longer)
        assert all(size(r.chosen) < size(r.rejected) for r in shorter)
        assert min(len(longer), len(shorter)) > 200
        assert len(longer) + len(shorter) < len(records)


class TestTraining:
    """The facts that chapters 6 to 8 rest on, on one seed; the chapters show the spread."""

    def train(self, records, naive):
        reference, policy = load_sft(), load_sft()
        optimizer = torch.optim.Adam(policy.parameters(), 4e-4)
        dataset = PreferenceDataset(records, world_tokenizer())
        for batch in dataset.batches(32, steps=40, seed=0):
            chosen, rejected = get_pair_log_probs(policy, batch)
            if naive:
                loss = -F.logsigmoid(chosen - rejected).mean()
            else:
                with torch.no_grad():
                    kept = get_pair_log_probs(reference, batch)
                loss = dpo_loss(chosen, rejected, *kept, beta=1.0).losses.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return self.look(policy, reference)

    def look(self, policy, reference):
        return evaluate_samples(
            policy, world_tokenizer(), preference_prompts(), reference, judge=judge, per_prompt=6
        )

    def test_preferences_improve_the_model_more_with_the_reference(self):
        records = label_by_reward(load_pairs(), 0)
        start = self.look(load_sft(), load_sft()).true_reward.mean
        dpo, naive = (self.train(records, naive).true_reward.mean for naive in (False, True))
        assert dpo > start + 0.35
        assert dpo > naive + 0.15

    def test_labels_without_preference_move_only_the_naive_policy(self):
        records = label_both_ways(load_pairs())
        dpo, naive = self.train(records, False), self.train(records, True)
        assert dpo.kl.k3.mean < 0.15 < 0.3 < naive.kl.k3.mean
        assert naive.true_reward.mean < dpo.true_reward.mean - 0.15
        assert naive.length > dpo.length + 0.5
