"""Direct Preference Optimization from scratch: one page, PyTorch and the standard library.

python dpo_from_scratch.py                 train; exit 0 only if held-out margins grew
python -m pytest test_dpo_from_scratch.py  check the page
"""

import copy
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn

BETA = 1.0  # inverse temperature of the KL penalty
STEPS, RATE = 30, 1e-4  # preference training: updates, learning rate of Adam
WARM_UP_STEPS, WARM_UP_RATE = 300, 1e-2  # supervised training before it

# --- 1. Twelve prompts, twenty-four preferences ---------------------------------------
# (prompt, short and right, long and right, topic; a wrong answer in every fourth row)
TWELVE = [
    ("Capital of France?", "Paris.", "The capital of France is Paris.", "France"),
    ("Capital of Japan?", "Tokyo.", "The capital of Japan is Tokyo.", "Japan"),
    ("Capital of Kenya?", "Nairobi.", "The capital of Kenya is Nairobi.", "Kenya"),
    ("Capital of Peru?", "Lima.", "The capital of Peru is Lima.", "Cusco"),
    ("What is 2+2?", "4.", "The sum of 2 and 2 is 4.", "sums"),
    ("What is 3+5?", "8.", "The sum of 3 and 5 is 8.", "sums"),
    ("What is 4+3?", "7.", "The sum of 4 and 3 is 7.", "sums"),
    ("What is 1+5?", "6.", "The sum of 1 and 5 is 6.", "9"),
    ("List two colors.", "Red, blue.", "Two colors are red and blue.", "colors"),
    ("List two animals.", "Cat, dog.", "Two animals are cat and dog.", "animals"),
    ("List two fruits.", "Fig, plum.", "Two fruits are fig and plum.", "fruits"),
    ("List two metals.", "Iron, gold.", "Two metals are iron and gold.", "H2O"),
]
BAD = [  # (short, long) for the four rows of a family
    ("Look it up.", "It is nice to talk about {}."),
    ("Who cares?", "Many people ask about {}."),
    ("No idea.", "There is much to say about {}."),
    ("{}.", "It may well be {}, or not."),
]


def make_pairs(seed):
    """Training and held-out pairs (prompt, chosen, rejected); no prompt is in both.

    A prompt gives two pairs, short answer against long bad one and the reverse: length
    says nothing about quality. One prompt of each family is held out, at different rows.
    """
    training, held_out = [], []
    for number, (prompt, short, long, topic) in enumerate(TWELVE):
        family, row = divmod(number, 4)
        curt, wordy = (text.format(topic) for text in BAD[row])
        pairs = held_out if row == (seed + family) % 4 else training
        pairs += [(prompt, short, wordy), (prompt, long, curt)]
    return training, held_out


# --- 2. Bytes -------------------------------------------------------------------------
INST, RESP, EOS, PAD = 256, 257, 258, 259  # the ids after the 256 bytes
VOCAB_SIZE = 260


def encode(prompt, response):
    """Ids of INST prompt RESP response EOS, and a mask: 1 on the response and its EOS."""
    before = [INST, *prompt.encode(), RESP]
    after = [*response.encode(), EOS]
    return before + after, [0] * len(before) + [1] * len(after)


def make_batch(texts):
    """Ids and mask of (prompt, response) texts, padded on the right."""
    rows = [encode(prompt, response) for prompt, response in texts]
    T = max(len(ids) for ids, _ in rows)
    tokens = torch.tensor([ids + [PAD] * (T - len(ids)) for ids, _ in rows])  # (B, T)
    mask = torch.tensor([marks + [0] * (T - len(marks)) for _, marks in rows])  # (B, T)
    return tokens, mask


# --- 3. A decoder-only transformer ----------------------------------------------------
class Block(nn.Module):
    """Causal attention, then a two-layer perceptron, each added to what came in."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        wide = 4 * width
        self.mlp = nn.Sequential(nn.Linear(width, wide), nn.ReLU(), nn.Linear(wide, width))

    def forward(self, x):
        """(B, T, D) to (B, T, D)."""
        B, T, D = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(B, T, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, H, T, d) each, d = D / H
        scores = query @ key.transpose(-2, -1) / math.sqrt(D // self.heads)  # (B, H, T, T)
        future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1)  # (T, T)
        weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)
        gathered = weights @ value  # (B, H, T, d)
        x = x + self.output(gathered.transpose(1, 2).reshape(B, T, D))
        return x + self.mlp(self.mlp_norm(x))


class TinyGPT(nn.Module):
    """Logits for the next token at every position, in float64."""

    def __init__(self, seed, width=32, heads=2, layers=2, context=64):
        super().__init__()
        self.token_embedding = nn.Embedding(VOCAB_SIZE, width)
        self.position_embedding = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.final_norm = nn.LayerNorm(width)
        self.double()
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:  # start small: close to uniform over the vocabulary
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens):
        """(B, T) to (B, T, V)."""
        positions = torch.arange(tokens.shape[1])
        x = self.token_embedding(tokens) + self.position_embedding(positions)  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.final_norm(x), self.token_embedding.weight)  # (B, T, V)


@torch.no_grad()
def answer(model, prompt, most=40):
    """What the model writes when it always takes the likeliest byte."""
    tokens = encode(prompt, "")[0][:-1]  # without EOS
    end = len(tokens) + most
    while tokens[-1] != EOS and len(tokens) < end:
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    reply = tokens[end - most :]
    return bytes(token for token in reply if token < 256).decode(errors="replace")


# --- 4. From log-probabilities to the loss --------------------------------------------
def sequence_log_probs(model, tokens, mask):
    """Log-probability (nats) of each response given its prompt, (B,)."""
    log_probs = model(tokens)[:, :-1].log_softmax(dim=-1)  # position t predicts token t + 1
    targets = tokens[:, 1:].unsqueeze(-1)  # (B, T - 1, 1)
    return (log_probs.gather(-1, targets).squeeze(-1) * mask[:, 1:]).sum(dim=-1)


def pair_log_probs(model, pairs):
    """Log-probabilities of the chosen and of the rejected responses, (B,) each."""
    texts = [(prompt, chosen) for prompt, chosen, _ in pairs]
    texts += [(prompt, rejected) for prompt, _, rejected in pairs]
    return sequence_log_probs(model, *make_batch(texts)).chunk(2)


def dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """-log sigmoid of the reward margin: a loss (nats) for each pair, (B,)."""
    chosen_rewards = beta * (policy_chosen - ref_chosen)
    rejected_rewards = beta * (policy_rejected - ref_rejected)
    return -F.logsigmoid(chosen_rewards - rejected_rewards)


# --- 5. Training ----------------------------------------------------------------------
def warm_up(model, texts, seed, steps=WARM_UP_STEPS):
    """Supervised training on (prompt, response) texts: how to write, not what to prefer."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(steps):
        some = torch.randperm(len(texts), generator=generator)[:16].tolist()
        tokens, mask = make_batch([texts[i] for i in some])
        loss = -sequence_log_probs(model, tokens, mask).sum() / mask.sum()
        slow = min(1, (step + 1) / 10, 1 - step / steps)  # at both ends
        optimizer.param_groups[0]["lr"] = WARM_UP_RATE * slow
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def make_reference(policy):
    """A frozen copy: it gets no gradient and never changes."""
    return copy.deepcopy(policy).eval().requires_grad_(False)


@torch.no_grad()
def evaluate_margins(policy, reference, pairs, beta=BETA):
    """Reward margin of each pair, (B,), without the loss: a loss must not grade itself."""
    chosen, rejected = pair_log_probs(policy, pairs)
    ref_chosen, ref_rejected = pair_log_probs(reference, pairs)
    return beta * ((chosen - rejected) - (ref_chosen - ref_rejected))


def train(policy, reference, training, held_out, steps, loss=dpo_loss, report=print):
    """Rows of loss, training margins, held-out margins: before each update, after all."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    with torch.no_grad():
        reference_logps = pair_log_probs(reference, training)  # they never change
    rows = []
    for step in range(steps + 1):
        mean = loss(*pair_log_probs(policy, training), *reference_logps, BETA).mean()
        margins = [evaluate_margins(policy, reference, x) for x in (training, held_out)]
        rows.append((mean.item(), *margins))
        right = [(1 + z.sign().mean()) / 2 for z in margins]  # a tie counts one half
        columns = [f"{z.mean():8.3f}{p:9.2f}" for z, p in zip(margins, right, strict=True)]
        report(f"{step:4} {mean:8.4f}", *columns)
        if step < steps:
            optimizer.zero_grad()
            mean.backward()
            optimizer.step()
    return rows


def problems(rows):
    """What speaks against a run, in words; nothing if it succeeded."""
    (first, *starts), (last, end, held_out) = rows[0], rows[-1]
    by_length = held_out[0::2].mean(), held_out[1::2].mean()  # short winners, long winners
    checks = {
        "margins do not start at 0": all(z.abs().max() < 1e-9 for z in starts),
        "the loss does not start at log 2": abs(first - math.log(2)) < 1e-9,
        "the loss is not that of the margins": abs(last + F.logsigmoid(end).mean()) < 1e-9,
        "the held-out margin is below 0.25 nats": held_out.mean() >= 0.25,
        "held-out margins did not grow for both lengths": min(by_length) > 0,
        "the held-out accuracy is below 2/3": (held_out > 0).double().mean() > 0.66,
    }
    return [problem for problem, fine in checks.items() if not fine]


def run_demo(steps=STEPS, seed=0, loss=dpo_loss, report=print):
    """Warm up, train, judge. 0: held-out margins grew and nothing was wrong; else 1."""
    training, held_out = make_pairs(seed)
    policy = TinyGPT(seed)
    warm_up(policy, [(x, y) for x, *both in training + held_out for y in both], seed)
    reference = make_reference(policy)
    before = make_reference(reference).state_dict()
    report("              training          held out")
    report("step     loss   margin accuracy   margin accuracy")
    wrong = problems(train(policy, reference, training, held_out, steps, loss, report))
    if any((reference.state_dict()[name] != old).any() for name, old in before.items()):
        wrong.append("the reference has changed")
    for prompt in dict.fromkeys(prompt for prompt, *_ in held_out):
        report(f"{prompt:18} {answer(reference, prompt):35} -> {answer(policy, prompt)}")
    report("FAILED: " + "; ".join(wrong) if wrong else "Held-out margins grew.")
    return 1 if wrong else 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a model is fastest so
    sys.exit(run_demo())
