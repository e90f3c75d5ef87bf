// The model's own thread. The page posts { id, ask, …values }; the answer is { id, answer } or { id, error },
// and a run in progress reports rows { run, row } and looks { run, look }. Nothing here touches the page.

import { startPython } from "./python.js";
import { klFromSamples, sample } from "./sampling.js";
import { TinyGPT, pack } from "./tiny_gpt.js";
import { Adam, LOSSES, byDifferences, pairLogProbs, trainingStep } from "./training.js";
import { Judge, WordTokenizer } from "./world.js";

const LOOK_EVERY = 10; // updates between looks at what the policy writes
const BATCH = 32; // pairs an update, or all where there are fewer

// Uniform numbers in [0, 1) from a seed (mulberry32): the same on every machine.
export function uniformFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function start(scope, world) {
  const tokenizer = new WordTokenizer(world.words);
  const judge = new Judge(world);
  const runs = new Map();
  let sft = null;
  let base = null;
  let python = null;

  const weights = (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return Float64Array.from(new Float32Array(bytes.buffer));
  };

  const ids = ({ prompt, chosen, rejected }) => [
    tokenizer.encode(prompt),
    tokenizer.encodeResponse(chosen),
    tokenizer.encodeResponse(rejected),
  ];

  // Whether the model can read a row: all words known, no text empty, none too long.
  function readable({ prompt, chosen, rejected }) {
    try {
      const [asked, ...answers] = [prompt, chosen, rejected].map((text) => tokenizer.encode(text).length);
      return asked > 0 && answers.every((length) => length > 0 && asked + length <= sft.config.context_length);
    } catch {
      return false;
    }
  }

  // The rows that a run or a table is made of: the reader's or, where there are none, a stored annotator's.
  function usable(clicks = []) {
    const [own, unread] = [[], []];
    for (const row of clicks) (readable(row) ? own : unread).push(row);
    return { rows: own.length ? own : world.annotator, unread, yours: own.length > 0 };
  }

  // One reply to each prompt, with what the truth says of it; greedy when the seed is null.
  function write(model, prompts, seed) {
    const encoded = prompts.map((prompt) => tokenizer.encode(prompt));
    const uniform = uniformFrom(seed ?? 0);
    const replies = sample(model, encoded, { eosId: tokenizer.eosId, uniform, temperature: seed === null ? 0 : 1 });
    return replies.map(({ tokens, finished }, i) => {
      const text = tokenizer.decode(tokens);
      return { prompt: prompts[i], text, finished, tokens, ...judge.judge(prompts[i], text, finished) };
    });
  }

  // Pairs of different, complete replies that the SFT model itself gave, not yet labeled.
  function draw(prompts, perPrompt, seed) {
    const asked = prompts.flatMap((prompt) => Array(4 * perPrompt).fill(prompt));
    const replies = write(sft, asked, seed);
    return prompts.flatMap((prompt, p) => {
      const own = replies.slice(4 * perPrompt * p, 4 * perPrompt * (p + 1)).filter(({ text, finished }) => text && finished);
      const found = [];
      for (let i = 0; i + 1 < own.length; i += 2) {
        if (own[i].text !== own[i + 1].text) found.push({ prompt, first: own[i].text, second: own[i + 1].text });
      }
      return found.slice(0, perPrompt);
    });
  }

  // Labels: by the true reward (ties left out), drawn from Bradley–Terry on it, by a coin, or both ways.
  function label(pairs, how, seed) {
    const uniform = uniformFrom(seed);
    return pairs.flatMap(({ prompt, first, second }) => {
      const rows = [{ prompt, chosen: first, rejected: second }, { prompt, chosen: second, rejected: first }];
      if (how === "both") return rows;
      const gap = judge.judge(prompt, first).reward - judge.judge(prompt, second).reward;
      if (how === "true" && gap === 0) return [];
      const firstWins = how === "true" ? gap > 0 : uniform() < (how === "noisy" ? 1 / (1 + Math.exp(-gap)) : 0.5);
      return [rows[firstWins ? 0 : 1]];
    });
  }

  // The clicks with one turned round: the one that the truth is surest of.
  function withOneWrong(rows) {
    const gap = ({ prompt, chosen, rejected }) => judge.judge(prompt, chosen).reward - judge.judge(prompt, rejected).reward;
    const surest = rows.reduce((a, b) => (gap(b) > gap(a) ? b : a));
    return rows.map((row) => (row === surest ? { ...row, chosen: row.rejected, rejected: row.chosen } : row));
  }

  // What the policy writes now: means over fresh replies, and how far it is from its reference.
  function look(run) {
    const replies = write(run.policy, world.asked.flatMap((prompt) => [prompt, prompt]), run.seed + 1);
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const batch = pack(replies.map(({ prompt, tokens }) => [tokenizer.encode(prompt), tokens]));
    return {
      step: run.optimizer.steps,
      reward: mean(replies.map(({ reward }) => reward)),
      malformed: mean(replies.map(({ malformed }) => Number(malformed))),
      kl: klFromSamples(run.policy, sft, batch),
      answers: write(run.policy, run.shown, run.seed + 2).map(({ text, reward, finished }) => ({ text, reward, finished })),
    };
  }

  function shuffled(values, uniform) {
    const order = [...values];
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(uniform() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // The pairs of an update: all in a fresh order before any is used again.
  function nextPairs(run) {
    while (run.waiting.length < Math.min(BATCH, run.pairs.length)) {
      run.waiting.push(...shuffled(run.pairs.keys(), run.uniform));
    }
    return run.waiting.splice(0, Math.min(BATCH, run.pairs.length));
  }

  const asks = {
    load({ model }) {
      sft = new TinyGPT(model, weights(model.weights));
    },
    base(text) {
      base = new TinyGPT(sft, weights(text.weights));
    },
    async python({ source, wasm }) {
      python ??= await startPython(source, wasm);
    },
    // The values of the reader's loss for each case of numbers, or the error that one of them raised.
    code({ code, cases }) {
      const value = python(code);
      return cases.map((numbers) => value(...numbers));
    },
    write({ prompts, seed }) {
      return write(sft, prompts, seed);
    },
    // prompts: texts, or how many are taken at random
    draw({ prompts = world.asked, perPrompt, seed }) {
      const some = () => shuffled(world.asked, uniformFrom(seed)).slice(0, prompts);
      return draw(Array.isArray(prompts) ? prompts : some(), perPrompt, seed);
    },
    // log π of every token of the responses to a prompt, by the names of models; with { beta, rate } as
    // `update`, also after one DPO update on them, the chosen first, of the policy or else the SFT model.
    tokens({ prompt, responses, models, policy, update }) {
      const known = { base, sft, policy: policy && new TinyGPT(sft, policy) };
      const asked = tokenizer.encode(prompt);
      const [chosen, rejected] = responses.map((text) => tokenizer.encodeResponse(text));
      const pairs = [[asked, chosen, rejected]];
      const batch = pack(pairs);
      const read = (model) => {
        const logps = [...model.tokenLogProbs(batch, model.forward(batch))];
        return [logps.slice(0, chosen.length), logps.slice(chosen.length)];
      };
      const logps = Object.fromEntries(models.map((name) => [name, read(known[name])]));
      if (update) {
        const after = (known.policy ?? sft).copy();
        const optimizer = new Adam(after, update.rate);
        trainingStep(after, optimizer, pairs, pairLogProbs(sft, pairs), LOSSES.dpo, update.beta, Infinity);
        logps.after = read(after);
      }
      const words = (ids) => ids.map((id) => tokenizer.words[id]);
      return { prompt: words(asked), tokens: [words(chosen), words(rejected)], logps };
    },
    // What the truth, the SFT model and a policy's weights say of clicks, each as [chosen, rejected]: kinds, true
    // rewards, log π (nats).
    clicks({ clicks, policy }) {
      const { rows, ...found } = usable(clicks);
      const judged = rows.map(({ prompt, chosen, rejected }) => [judge.judge(prompt, chosen), judge.judge(prompt, rejected)]);
      const logps = (model) => rows.flatMap((_, i) => (i % BATCH ? [] : pairLogProbs(model, rows.slice(i, i + BATCH).map(ids))));
      return {
        rows, ...found,
        kinds: judged.map((both) => both.map(({ kind }) => kind)),
        rewards: judged.map((both) => both.map(({ reward }) => reward)),
        sft: logps(sft),
        policy: policy ? logps(new TinyGPT(sft, policy)) : null,
      };
    },
    // labels: "true", "noisy", "coin", "both", or "clicks" and "wrong" on rows { prompt, chosen, rejected }: see
    // `usable`. `unread`: those left out.
    begin({ run: name, loss, labels, clicks, code, beta, rate, seed = 0, shown }) {
      const found = usable(clicks);
      let { rows } = found;
      if (labels === "wrong") rows = withOneWrong(rows);
      else if (labels !== "clicks") rows = label(draw(world.asked, 4, seed), labels, seed);
      const pairs = rows.map(ids);
      const policy = sft.copy();
      const run = {
        policy, pairs, beta, seed, shown,
        optimizer: new Adam(policy, rate),
        loss: code ? byDifferences(python(code)) : LOSSES[loss],
        said: code ? "the loss that you wrote" : { dpo: "DPO", naive: "the naive loss", sft: "SFT" }[loss],
        reference: pairLogProbs(sft, pairs),
        uniform: uniformFrom(seed),
        waiting: [],
        going: false,
      };
      runs.set(name, run);
      return { pairs: pairs.length, unread: found.unread, look: look(run) };
    },
    async advance({ run: name, steps }) {
      const run = runs.get(name);
      run.going = true;
      for (let i = 0; i < steps && run.going; i++) {
        const chosen = nextPairs(run);
        const pick = (all) => chosen.map((j) => all[j]);
        const row = trainingStep(run.policy, run.optimizer, pick(run.pairs), pick(run.reference), run.loss, run.beta);
        scope.postMessage({ run: name, row: { step: run.optimizer.steps, ...row } });
        if (run.optimizer.steps % LOOK_EVERY === 0) scope.postMessage({ run: name, look: look(run) });
        await new Promise((resolve) => setTimeout(resolve)); // lets a pause in
      }
      run.going = false;
      const { policy: { all }, said, beta: b, optimizer: { steps: made } } = run;
      scope.postMessage({ policy: { weights: all, words: `${said}, β = ${Number(b.toPrecision(2))}, ${made} updates`, beta: b } });
    },
    pause({ run: name }) {
      if (runs.has(name)) runs.get(name).going = false;
    },
  };

  scope.onmessage = async ({ data: { id, ask, ...values } }) => {
    try {
      scope.postMessage({ id, answer: await asks[ask](values) });
    } catch (error) {
      scope.postMessage({ id, error: error.message });
    }
  };
}
