"""The model that lives in the page: its arithmetic is that of dpo_lib, down to the last weight."""

import ast
import functools
import itertools
import json
import random

import pytest
import torch

from dpo_lib import train_dpo
from dpo_lib.data import PreferenceDataset, PreferenceRecord
from dpo_lib.evaluation import estimate_kl, reply_log_probs
from dpo_lib.logprobs import get_pair_log_probs
from dpo_lib.losses import PreferenceLoss, dpo_loss, naive_loss
from dpo_lib.models.checkpoints import load_sft
from dpo_lib.models.sampling import Reply, respond
from dpo_lib.training import DPOConfig
from dpo_lib.widgets import join, live
from dpo_lib.widgets.token_view import measure_tokens
from dpo_lib.world import (
    all_prompts,
    base_documents,
    demonstrations,
    judge,
    load_pairs,
    preference_prompts,
    prompts_of,
    world_tokenizer,
)
from dpo_lib.world.families import MEMBERS
from tests.widgets.kinds import kind_of

MODULES = ("layers", "tiny_gpt", "training", "sampling", "world", "worker")
EXPORTS = ", ".join(f"...module_live_{name}" for name in MODULES)
SETUP = """([model, world]) => {
  const bytes = Uint8Array.from(atob(model.weights), (c) => c.charCodeAt(0));
  self.sft = new live.TinyGPT(model, Float64Array.from(new Float32Array(bytes.buffer)));
  self.tokenizer = new live.WordTokenizer(world.words);
  self.judge = new live.Judge(world);
}"""


def source():
    return join.classic("live/worker.js", f"self.live = {{ {EXPORTS} }};")


def open_engine(browser, script):
    page = browser.new_page()
    page.add_script_tag(content=script)
    page.evaluate(SETUP, [live.model(), live.world()])
    return page


@pytest.fixture(scope="module")
def page(browser):
    page = open_engine(browser, source())
    yield page
    page.close()


@functools.cache
def dataset(start=0, stop=24):
    pairs = load_pairs()[::7][start:stop]
    records = [PreferenceRecord(prompt, first, second) for prompt, first, second in pairs]
    return PreferenceDataset(records, world_tokenizer())


def rows(data):
    return [[row[key] for key in ("prompt", "chosen", "rejected")] for row in data]


def sft_loss(chosen, rejected, reference_chosen, reference_rejected, beta):
    rewards = dpo_loss(chosen, rejected, reference_chosen, reference_rejected, beta)[1:]
    return PreferenceLoss(-chosen, *rewards)


LOSSES = {"dpo": dpo_loss, "naive": naive_loss, "sft": sft_loss}


# --- forward and backward --------------------------------------------------------------------


def test_logits_are_those_of_the_model(page):
    texts = [world_tokenizer().encode(text) for text in base_documents(40, seed=1)]
    texts = [text[:40] for text in texts if len(text) > 1]
    got = page.evaluate(
        "texts => texts.map(([first, ...rest]) => "
        "[...sft.forward(live.pack([[[first], [...rest, 1]]])).logits])",
        texts,
    )
    for text, logits in zip(texts, got, strict=True):
        expected = load_sft()(torch.tensor([text]))[0]
        logits = torch.tensor(logits, dtype=torch.float64).view_as(expected)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def test_a_text_may_fill_the_context_and_no_more(page):
    full = load_sft().config.context_length
    got = page.evaluate(
        """lengths => lengths.map((length) => {
          try { return sft.forward(live.pack([[Array(length).fill(5), [1]]])).logits.length; }
          catch (error) { return error.message; }
        })""",
        [full, full + 1],
    )
    assert got == [len(world_tokenizer()), f"a text is longer than {full} tokens"]


LINEAR = """cases => cases.map(([N, I, O, x, weight, bias, dy]) => {
  const arrays = [x, weight, bias, dy].map((values) => Float64Array.from(values));
  const sums = [new Float64Array(O * I), new Float64Array(O)];
  const y = live.linear(...arrays.slice(0, 3), N, I, O);
  const dx = live.linearBackward(arrays[3], arrays[0], arrays[1], ...sums, N, I, O);
  return [y, dx, ...sums].map((values) => [...values]);
})"""


def test_a_linear_layer_of_any_size_is_torch_s(page):
    drawn = torch.Generator().manual_seed(0)
    cases, expected = [], []
    for n, i, o in itertools.product(range(1, 5), (1, 3), range(1, 5)):
        shapes = [(n, i), (o, i), (o,), (n, o)]
        *inputs, dy = [torch.randn(s, dtype=torch.float64, generator=drawn) for s in shapes]
        y = torch.nn.functional.linear(*(tensor.requires_grad_() for tensor in inputs))
        outputs = [y, *torch.autograd.grad(y, inputs, dy)]
        cases.append([n, i, o, *(tensor.flatten().tolist() for tensor in (*inputs, dy))])
        expected.append([pytest.approx(t.flatten().tolist(), rel=1e-12) for t in outputs])
    assert page.evaluate(LINEAR, cases) == expected


def test_a_softmax_of_large_numbers_minds_its_part_only(page):
    numbers = [[1e4, 999.0, 1000.0, 0.0, 1e4], [-1e4, -1e4, -9999.0, -9998.0, 1e4]]
    got = page.evaluate(
        """rows => rows.map((numbers) => {
          const x = Float64Array.from(numbers);
          return [live.softmax(x, 1, 3), ...x];
        })""",
        numbers,
    )
    x = torch.tensor(numbers, dtype=torch.float64)
    x = torch.cat([x[:, 1:4].logsumexp(1)[:, None], x], dim=1)
    x[:, 2:5] = x[:, 2:5].softmax(1)
    torch.testing.assert_close(torch.tensor(got, dtype=x.dtype), x, rtol=1e-12, atol=0)


def test_log_probabilities_of_pairs_are_those_of_the_library(page):
    got = page.evaluate("rows => live.pairLogProbs(sft, rows)", rows(dataset()))
    expected = torch.stack(get_pair_log_probs(load_sft(), dataset().batch()), dim=1)
    torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected, rtol=0, atol=1e-9)


GRADIENT = """([rows, reference, loss, beta]) => {
  let gradient = null;
  const keep = { step(found) { gradient = [...found]; } };
  const row = live.trainingStep(sft, keep, rows, reference, live.LOSSES[loss], beta, Infinity);
  return [row.loss, gradient];
}"""


@functools.cache
def expected_gradient(name):
    """Reference values, loss and gradient by parameter of eight pairs, from autograd."""
    model, data = load_sft(), dataset(0, 8)
    chosen, rejected = get_pair_log_probs(model, data.batch())
    drawn = torch.rand(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = torch.stack([chosen, rejected]).detach() - drawn
    loss = LOSSES[name](chosen, rejected, *reference, 0.3).losses.mean()
    loss.backward()
    return reference.T.tolist(), loss.item(), {n: p.grad for n, p in model.named_parameters()}


def wrong_parameters(page, name):
    """Names of the parameters whose gradient is not that of autograd to 1e-7."""
    reference, loss, expected = expected_gradient(name)
    got_loss, flat = page.evaluate(GRADIENT, [rows(dataset(0, 8)), reference, name, 0.3])
    assert got_loss == pytest.approx(loss, rel=1e-12)
    parts = torch.tensor(flat, dtype=torch.float64).split([g.numel() for g in expected.values()])
    return [
        name
        for (name, gradient), part in zip(expected.items(), parts, strict=True)
        if not (part.view_as(gradient) - gradient).norm() <= 1e-7 * gradient.norm()
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_every_gradient_is_that_of_autograd(page, name):
    assert wrong_parameters(page, name) == []


# One derivative broken at a time: what stands there, what is put there, a parameter that shows it.
BROKEN = {
    "softmax": ("= -dLogps[of[r]] * kept.logits[i]", "= 0", "token_embedding.weight"),
    "target": ("dLogits[r * V + token] += dLogps[of[r]]", "", "final_norm.bias"),
    "unembedding": (
        '...both("token_embedding"), R, D, V',
        'w["token_embedding.weight"], new Float64Array(V * D), null, R, D, V',
        "token_embedding.weight",
    ),
    "embedding": (
        'gatherBackward(dx, tokens, d["token_embedding.weight"], D)',
        "",
        "token_embedding.weight",
    ),
    "gather": (
        "dx[row * D + d] += dy[n * D + d]",
        "dx[row * D + d] = dy[n * D + d]",
        "token_embedding.weight",
    ),
    "positions": (
        'gatherBackward(dx, kept.positions, d["position_embedding.weight"], D)',
        'gatherBackward(dx, kept.positions.map(() => 0), d["position_embedding.weight"], D)',
        "position_embedding.weight",
    ),
    "linear weight": (
        "timesTransposed(transposed(dy, N, O), transposed(x, N, I), O, I, N)",
        "timesTransposed(transposed(dy, N, O), transposed(x, N, I), O, I, N - 1)",
        "blocks.1.mlp.2.weight",
    ),
    "linear bias": ("dBias[o] += dy[i]", "dBias[o] = dy[i]", "blocks.1.mlp.2.bias"),
    "linear input": (
        "return timesTransposed(dy, transposed(weight, O, I), N, I, O)",
        "return timesTransposed(dy, weight, N, I, O)",
        "blocks.1.mlp.0.weight",
    ),
    "relu": (", D), inner); // (N, 4D)", ", D)); // (N, 4D)", "blocks.1.mlp.0.bias"),
    "norm mean": ("dy[i] * weight[d] - mean", "dy[i] * weight[d]", "blocks.1.mlp.2.bias"),
    "norm scale": (" - normal[i] * along", "", "blocks.1.mlp.2.weight"),
    "norm weight": ("dWeight[d] += dy[i] * normal[i]", "dWeight[d] += dy[i]", "final_norm.weight"),
    "norm bias": ("dBias[d] += dy[i];", "", "blocks.0.attention_norm.bias"),
    "values": (
        "dQkv[value + d] += weights[at + j] * dGathered[from + d]",
        "",
        "blocks.1.attention.query_key_value.bias",
    ),
    "attention": (
        "(dWeights[j] - along)", "dWeights[j]", "blocks.0.attention.query_key_value.weight",
    ),
    "queries": (
        "dQkv[query + d] += dScore * qkv[key + d]",
        "",
        "blocks.1.attention.query_key_value.weight",
    ),
    "keys": (
        "dQkv[key + d] += dScore * qkv[query + d]",
        "",
        "blocks.1.attention.query_key_value.weight",
    ),
    "attention residual": (
        "add(dx, norm(dAttentionNorm,",
        "(norm(dAttentionNorm,",
        "position_embedding.weight",
    ),
    "mlp residual": (
        "add(dx, norm(dMlpNorm,",
        "(norm(dMlpNorm,",
        "blocks.1.attention.output.weight",
    ),
    "rejected": (
        "rejectedSlope: beta * weight", "rejectedSlope: -beta * weight", "final_norm.weight",
    ),
    "chosen": ("chosenSlope: -beta * weight", "chosenSlope: -weight", "final_norm.weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_derivative_is_noticed(browser, what):
    old, new, parameter = BROKEN[what]
    script = source()
    assert script.count(old) == 1, "the code that this test breaks has changed"
    page = open_engine(browser, script.replace(old, new))
    assert parameter in wrong_parameters(page, "dpo")
    page.close()


# --- training --------------------------------------------------------------------------------

TRAIN = """([batches, references, loss, beta, rate]) => {
  const policy = sft.copy();
  const optimizer = new live.Adam(policy, rate);
  const steps = batches.map((batch, i) =>
    live.trainingStep(policy, optimizer, batch, references[i], live.LOSSES[loss], beta));
  return [steps, [...policy.all]];
}"""


@pytest.mark.parametrize("name", LOSSES)
def test_ten_updates_are_those_of_train_dpo(page, name):
    data, beta, rate = dataset(), 0.5, 1e-3
    policy = load_sft()
    config = DPOConfig(beta=beta, learning_rate=rate, steps=10, batch_size=8, eval_every=10)
    history = train_dpo(policy, None, data, config, loss=LOSSES[name], progress=False)
    indices = [data.pairs_of_step(step, 8, config.seed).tolist() for step in range(10)]
    reference = torch.stack(get_pair_log_probs(load_sft(), data.batch()), dim=1).tolist()
    all_rows = rows(data)
    batches = [[all_rows[i] for i in some] for some in indices]
    references = [[reference[i] for i in some] for some in indices]
    steps, flat = page.evaluate(TRAIN, [batches, references, name, beta, rate])
    expected = torch.cat([p.detach().flatten() for p in policy.parameters()])
    start = torch.cat([p.detach().flatten() for p in load_sft().parameters()])
    error = (torch.tensor(flat, dtype=torch.float64) - expected).norm()
    assert error <= 1e-6 * (expected - start).norm()
    columns = {
        "loss": "loss", "accuracy": "reward_accuracy", "margin": "margin",
        "chosen": "chosen_logp", "rejected": "rejected_logp", "norm": "grad_norm",
    }  # fmt: skip
    for ours, theirs in columns.items():
        got = [step[ours] for step in steps]
        assert got == pytest.approx(history.column(theirs), rel=1e-6, abs=1e-9), ours


def test_a_gradient_is_clipped_as_torch_does(page):
    got = page.evaluate("""() => {
      const gradient = [3e-6, -4e-6];
      return [live.clip(gradient, 1e-6), ...gradient];
    }""")
    weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    weight.grad = torch.tensor([3e-6, -4e-6], dtype=torch.float64)
    norm = torch.nn.utils.clip_grad_norm_([weight], 1e-6)
    assert got == pytest.approx([norm.item(), *weight.grad.tolist()], rel=1e-12, abs=0)


def test_differences_give_the_slopes_of_a_loss(page):
    got = page.evaluate("""() => {
      const numbers = [-7.1, -9.4, -8.3, -6.2, 0.4];
      const { dpo } = live.LOSSES;
      const exact = dpo(...numbers);
      const found = live.byDifferences((...n) => dpo(...n).loss)(...numbers);
      return ["loss", "chosenSlope", "rejectedSlope"].map((key) => [found[key], exact[key]]);
    }""")
    for found, exact in got:
        assert found == pytest.approx(exact, rel=1e-8)


def test_a_step_that_is_not_finite_is_not_made(page):
    words = page.evaluate(
        """rows => {
          const policy = sft.copy();
          const reference = live.pairLogProbs(sft, rows);
          const bad = () => ({ loss: NaN, margin: 0, chosenSlope: NaN, rejectedSlope: 0 });
          try { live.trainingStep(policy, new live.Adam(policy, 1), rows, reference, bad, 1); }
          catch (error) { return [error.message, policy.all.every((w, i) => w === sft.all[i])]; }
        }""",
        rows(dataset(0, 2)),
    )
    assert "NaN" in words[0]
    assert words[1]


# --- sampling, tokenizer, truth --------------------------------------------------------------

SAMPLE = """([prompts, draws, temperature]) => {
  let used = 0;
  const uniform = () => draws[used++];
  const encoded = prompts.map((prompt) => tokenizer.encode(prompt));
  const replies = live.sample(sft, encoded, { eosId: 1, uniform, temperature });
  const row = ({ tokens, finished }) => [tokens, finished, tokenizer.decode(tokens)];
  return [used, replies.map(row)];
}"""


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_the_same_draws_give_the_same_texts(page, monkeypatch, temperature):
    prompts = [prompt.text for prompt in all_prompts()] * 3
    drawn, rand = [], torch.rand

    def recorded(*args, **kwargs):
        values = rand(*args, **kwargs)
        drawn.extend(values.flatten().tolist())
        return values

    monkeypatch.setattr(torch, "rand", recorded)
    replies = respond(load_sft(), world_tokenizer(), prompts, temperature=temperature, seed=3)
    used, got = page.evaluate(SAMPLE, [prompts, drawn, temperature])
    assert used == len(drawn)
    assert got == [[list(r.tokens), r.finished, r.text] for r in replies]


def test_a_reply_ends_at_the_limit(page):
    prompts = ["What is the capital of France?", "My order is late."]
    replies = respond(load_sft(), world_tokenizer(), prompts, temperature=0.0, max_new_tokens=3)
    got = page.evaluate(
        """prompts => live.sample(sft, prompts.map((prompt) => tokenizer.encode(prompt)),
          { eosId: 1, uniform: () => 0.5, maxNewTokens: 3, temperature: 0 })""",
        prompts,
    )
    assert [[r["tokens"], r["finished"]] for r in got] == [
        [list(r.tokens), r.finished] for r in replies
    ]
    assert {r["finished"] for r in got} == {False}


def test_kl_from_samples_is_that_of_the_library(page):
    prompts = preference_prompts()
    kl, replies, flat = page.evaluate(
        """([rows, prompts]) => {
          const policy = sft.copy();
          const optimizer = new live.Adam(policy, 3e-3);
          const reference = live.pairLogProbs(sft, rows);
          const { dpo } = live.LOSSES;
          for (let i = 0; i < 8; i++)
            live.trainingStep(policy, optimizer, rows, reference, dpo, 0.5);
          const encoded = prompts.map((prompt) => tokenizer.encode(prompt));
          const uniform = live.uniformFrom(4);
          const replies = live.sample(policy, encoded, { eosId: 1, uniform });
          const batch = live.pack(replies.map(({ tokens }, i) => [encoded[i], tokens]));
          return [live.klFromSamples(policy, sft, batch), replies, [...policy.all]];
        }""",
        [rows(dataset()), prompts],
    )
    policy = load_sft()
    vector = torch.tensor(flat, dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(vector, policy.parameters())
    given = [
        Reply(prompt, "", reply["finished"], tuple(reply["tokens"]))
        for prompt, reply in zip(prompts, replies, strict=True)
    ]
    logps = [reply_log_probs(model, world_tokenizer(), given) for model in (policy, load_sft())]
    assert kl == pytest.approx(estimate_kl(*logps).k1.mean, rel=1e-9)
    assert kl > 0.1


def test_uniform_numbers_are_uniform(page):
    values = page.evaluate(
        "() => { const u = live.uniformFrom(5); return Array.from({ length: 20000 }, u); }"
    )
    assert min(values) >= 0
    assert max(values) < 1
    shares = torch.tensor(values).histc(10, 0, 1) / len(values)
    assert (shares - 0.1).abs().max() < 0.01
    assert len(set(values)) > 19_990


def lists(draw):
    """Lists with and without their subject, of other things, too long or with a thing twice."""
    for category, members in MEMBERS.items():
        for others in (members, *MEMBERS.values()):
            first, *rest = draw.sample(members, 2) + draw.choices([*members, *others], k=1)
            for said in (f"{first} and {rest[0]}.", f"{first}, {rest[0]} and {rest[1]}."):
                heads = [
                    f"{count} {draw.choice([category, *MEMBERS])}" for count in ("Two", "Three")
                ]
                yield from (said, *(f"{head} are {said}" for head in heads))


def texts_of_the_world():
    """Every (prompt, response, finished) that the book's models could meet, and broken ones."""
    cases = [(p, text, True) for p, *texts in load_pairs() for text in texts]
    cases += [(p, text, True) for p, text in demonstrations(4000, seed=9)]
    cases += [(p, text, False) for p, text in demonstrations(50, seed=8)]
    cases += [("", text, True) for text in base_documents(500, seed=7)]
    prompts = [prompt.text for prompt in all_prompts()]
    some = sorted({text for _, text in demonstrations(300, seed=6)})
    cases += [(prompt, text, True) for prompt in prompts for text in some[::3]]
    broken = ["", " ", "Paris", "Paris. Paris.", "is Paris.", ". .", "red, red and blue."]
    broken += ["Rome. Ok?"]
    parts = ["I do not know.", "Please wait.", "Thank you for asking.", "I am sorry.", "Paris."]
    parts += ["That is not my problem.", "It is 4."]
    draw = random.Random(4)
    strings = [draw.choices(parts, k=draw.randint(2, 5)) for _ in range(400)]  # some say it twice
    cases += [(draw.choice(prompts), " ".join(said), True) for said in strings]
    cases += [(prompt.text, text, True) for prompt in prompts_of("list") for text in lists(draw)]
    odd = [*broken, *parts, "The capital", "Paris. Ok", "Paris..", "Paris .", "  Paris.  Paris. "]
    odd += ["Lyon. Paris.", "Paris. The capital of France is Paris."]
    cases += [(prompt, text, True) for prompt in (*prompts, "", "Sing", "What?") for text in odd]
    return [*dict.fromkeys(cases)]


def test_the_judge_says_the_same_of_every_text(page):
    cases = texts_of_the_world()
    got = page.evaluate(
        """cases => cases.map(([prompt, text, finished]) =>
          Object.values(judge.judge(prompt, text, ...(finished ? [] : [false]))))""",
        cases,
    )
    for case, (reward, correct, malformed, kind) in zip(cases, got, strict=True):
        expected = judge(*case)
        assert (reward, correct, malformed, kind) == (
            pytest.approx(expected.reward, abs=1e-12), expected.correct, expected.malformed,
            kind_of(*case),
        ), case  # fmt: skip
    assert len({kind for *_, kind in got}) == 5
    assert len({reward for reward, *_ in got}) > 10


def test_the_tokenizer_reads_and_writes_every_text_alike(page):
    tokenizer = world_tokenizer()
    texts = {text for p, *texts in load_pairs() for text in (p, *texts)}
    texts |= {text for pair in demonstrations(2000, seed=9) for text in pair}
    texts |= {"", " ", "<pad>", "Paris<eos>.", "red <eos> blue", "A) 12 B)12"}
    texts = sorted(texts | set(base_documents(2000, seed=7)))
    got = page.evaluate(
        """texts => texts.map((text) =>
          [tokenizer.encode(text), tokenizer.decode(tokenizer.encodeResponse(text))])""",
        texts,
    )
    assert got == [[tokenizer.encode(t), tokenizer.decode(tokenizer.encode(t))] for t in texts]


@pytest.mark.parametrize(
    "text",
    [
        "Paris is nice!", "Paris_ is é.", "E) A} <> <eo s>", "Earth'll Earth' 123",
        "Stryker’s red-blue cat", "x Paris x",
    ],
)  # fmt: skip
def test_the_tokenizer_names_the_same_words_outside_the_vocabulary(page, text):
    words = page.evaluate(
        "text => { try { tokenizer.encode(text); } catch (e) { return e.message; } }", text
    )
    with pytest.raises(ValueError, match="outside the vocabulary") as error:
        world_tokenizer().encode(text)
    unknown = ast.literal_eval(str(error.value).partition(": ")[2])
    assert words == f"words outside the vocabulary: {' '.join(unknown)}"


# --- the worker ------------------------------------------------------------------------------

CLIENT = """async ({ engine, model, python }) => {
  self.python = python;
  const url = URL.createObjectURL(new Blob([engine], { type: "text/javascript" }));
  const worker = new Worker(url);
  const waiting = new Map();
  self.reports = [];
  worker.onmessage = ({ data }) => {
    if (data.id) waiting.get(data.id)(data);
    else reports.push(data);
  };
  let id = 0;
  self.ask = (what, values = {}) => new Promise((resolve) => {
    waiting.set(++id, resolve);
    worker.postMessage({ id, ask: what, ...values });
  });
  return ask("load", { model });
}"""
SHOWN = ["What is the capital of France?", "My order is late."]


@pytest.fixture
def worker(browser, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("<!doctype html><title>t</title>", encoding="utf-8")
    page = browser.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    assert "error" not in page.evaluate(CLIENT, {name: load() for name, load in live.PARTS.items()})
    yield page
    page.close()
    assert faults == []


def ask(page, what, **values):
    return page.evaluate("([what, values]) => ask(what, values)", [what, values])


def begin(page, **values):
    settings = {"run": "a", "loss": "dpo", "labels": "true", "beta": 1.0, "rate": 2e-4, "seed": 1}
    return ask(page, "begin", **settings | {"shown": SHOWN} | values)


def test_a_run_in_the_worker_makes_the_model_better_and_says_so(worker):
    first = begin(worker)["answer"]
    assert first["pairs"] > 150
    assert first["look"]["kl"] == 0
    ask(worker, "advance", run="a", steps=60)
    reports = worker.evaluate("reports")
    steps = [report["row"] for report in reports if "row" in report]
    looks = [report["look"] for report in reports if "look" in report]
    assert [row["step"] for row in steps] == list(range(1, 61))
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert steps[0]["accuracy"] == 0.5
    assert steps[-1]["loss"] < 0.4
    assert [look["step"] for look in looks] == [10, 20, 30, 40, 50, 60]
    assert looks[-1]["reward"] > first["look"]["reward"] + 0.4
    assert looks[-1]["kl"] > 0.1


def test_two_equal_runs_are_equal_and_a_pause_stops_one(worker):
    reports = []
    for name in ("a", "b"):
        begin(worker, run=name)
        ask(worker, "advance", run=name, steps=5)
        rows = worker.evaluate("reports.splice(0)")
        reports.append([row["row"] for row in rows if "row" in row])
    assert reports[0] == reports[1]
    worker.evaluate("() => { self.running = ask('advance', { run: 'a', steps: 1e9 }); }")
    worker.wait_for_function("reports.length >= 3")
    ask(worker, "pause", run="a")
    worker.evaluate("running")
    seen = worker.evaluate("reports.length")
    worker.wait_for_timeout(300)
    assert worker.evaluate("reports.length") == seen


def test_what_the_worker_says_of_its_replies_is_what_the_library_says(worker):
    asked = [prompt for prompt in preference_prompts() for _ in range(2)]
    look = begin(worker, seed=1)["answer"]["look"]
    replies = ask(worker, "write", prompts=asked, seed=2)["answer"]
    judged = [judge(reply["prompt"], reply["text"], reply["finished"]) for reply in replies]
    assert look["reward"] == pytest.approx(sum(j.reward for j in judged) / len(judged))
    assert look["malformed"] == pytest.approx(sum(j.malformed for j in judged) / len(judged))
    assert len({reply["text"] for reply in replies}) > 50


def test_log_probs_of_tokens_and_the_next_update_are_those_of_the_library(worker):
    texts = ["List two colors.", "Two colors are red and blue.", "red."]
    update = {"beta": 0.3, "rate": 5e-4}
    worker.evaluate("values => ask('base', values)", live.base())
    begin(worker)
    ask(worker, "advance", run="a", steps=3)
    (weights,) = worker.evaluate(
        "reports.filter(({ policy }) => policy).map(({ policy }) => [...policy.weights])"
    )
    policy = load_sft()
    vector = torch.tensor(weights, dtype=torch.float64)
    torch.nn.utils.vector_to_parameters(vector, policy.parameters())
    for trained in (None, policy):
        models = ["base", "sft", *(["policy"] if trained else [])]
        got = worker.evaluate(
            """([prompt, responses, models, update, weights]) => {
              const policy = weights && Float64Array.from(weights);
              return ask("tokens", { prompt, responses, models, update, policy });
            }""",
            [texts[0], texts[1:], models, update, weights if trained else None],
        )["answer"]
        expected = measure_tokens(*texts, *update.values(), policy=trained)
        assert (got["prompt"], got["tokens"]) == (expected["prompt"], expected["tokens"])
        assert set(got["logps"]) == set(expected["logps"]) == {*models, "after"}
        for name in got["logps"]:
            for ours, theirs in zip(got["logps"][name], expected["logps"][name], strict=True):
                assert ours == pytest.approx(theirs, rel=0, abs=1e-9), name
        start = got["logps"][models[-1]]
        assert sum(got["logps"]["after"][0]) > sum(start[0]) + 0.1


def test_an_error_comes_back_in_words(worker):
    assert "love" in ask(worker, "write", prompts=["What is love?"], seed=0)["error"]


# --- the reader's Python ---------------------------------------------------------------------

RIGHT = """\
import math

def dpo_loss(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    gap = (policy_chosen - policy_rejected) - (reference_chosen - reference_rejected)
    return math.log1p(math.exp(-beta * gap))
"""


def run_python(page, code, cases):
    page.evaluate("ask('python', python)")
    return ask(page, "code", code=code, cases=cases)


def test_a_loss_in_python_has_the_library_s_values(worker):
    cases = [[-2.1, -4.5, -3.0, -3.2, 0.1], [-60.0, -2.0, -5.0, -5.0, 0.5], [-1, -1, -1, -1, 1]]
    got = run_python(worker, RIGHT, cases)["answer"]
    expected = [dpo_loss(*case).losses.item() for case in cases]
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("expression", ["log_sigmoid(x)", "sigmoid(x)", "math.log1p(abs(x))"])
def test_what_python_s_math_lacks_is_there(worker, expression):
    numbers = [0.0, 1e-12, -1e-12, 0.3, -0.7, 37.0, -37.0, 800.0, -800.0]
    code = f"def dpo_loss(x):\n    return {expression}\n"
    got = run_python(worker, code, [[x] for x in numbers])["answer"]
    x = torch.tensor(numbers, dtype=torch.float64)
    expected = {
        "log_sigmoid(x)": torch.nn.functional.logsigmoid(x),
        "sigmoid(x)": torch.sigmoid(x),
        "math.log1p(abs(x))": torch.log1p(x.abs()),
    }[expression]
    assert got == pytest.approx(expected.tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def dpo_loss(a, b):\n    return a +\n", "Line 2: SyntaxError"),
        ("import math\n\ndef dpo_loss(a, b):\n    return math.lgo(a)\n", "Line 4: Attribute"),
        ("def dpo_loss(a, b):\n    return log_sigmoid(c)\n", "Line 2: NameError: name 'c'"),
        ("def dpo_loss(a, b):\n    a + b\n", "dpo_loss gave None, not a number"),
        ("def loss(a, b):\n    return a\n", "no function dpo_loss"),
        ("def dpo_loss(a):\n    return a\n", "takes 1 positional arguments but 2"),
        ("def dpo_loss(a, b):\n    return math.log1p(0 * a - 2)\n", "Line 2: ValueError: math"),
    ],
)
def test_a_mistake_is_named_with_its_line(worker, code, words):
    assert words in run_python(worker, code, [[-1.0, -2.0]])["error"]


def test_the_second_code_knows_nothing_of_the_first(worker):
    first = "math = None\nsigmoid = None\n" + RIGHT
    cases = [[-2.1, -4.5, -3.0, -3.2, 0.1]]
    values = [run_python(worker, code, cases)["answer"] for code in (first, RIGHT)]
    assert values[0] == values[1]
    code = "def dpo_loss(*numbers):\n    return sigmoid(0.0)\n"
    assert run_python(worker, code, cases)["answer"] == [0.5]
    assert "no function" in run_python(worker, "x = 1\n", cases)["error"]


def test_the_reader_s_loss_trains_as_the_built_in_one_does(worker):
    worker.evaluate("ask('python', python)")
    histories = []
    for extra in ({}, {"code": RIGHT}):
        begin(worker, **extra)
        ask(worker, "advance", run="a", steps=8)
        rows = worker.evaluate("reports.splice(0)")
        histories.append([row["row"]["loss"] for row in rows if "row" in row])
    assert histories[0] == pytest.approx(histories[1], rel=1e-5)


# --- sizes -----------------------------------------------------------------------------------


def test_what_a_page_loads_for_the_model_stays_small():
    assert max(len(live.part_script(name)) for name in ("model", "base")) <= 180_000
    assert json.loads(live.part_script("model").partition(" = ")[2][:-2]) == live.model()
