"""What the page's thread makes of its orders: pairs, their labels and the batches of a run."""

import math

import pytest

from dpo_lib.widgets import live
from dpo_lib.world import judge, load_pairs
from tests.widgets.test_engine import source

BATCH = 32
START = """async ([model, world]) => {
  const posted = [];
  const scope = { postMessage: (message) => posted.push(message) };
  live.start(scope, world);
  self.ask = async ([ask, values]) => {
    posted.length = 0;
    await scope.onmessage({ data: { id: 1, ask, ...values } });
    const { answer = null, error } = posted.find(({ id }) => id === 1);
    if (error) throw new Error(error);
    return [answer, posted.flatMap(({ row }) => row ?? [])];
  };
  await self.ask(["load", { model }]);
}"""
UNIFORM = (
    "([seed, n]) => { const u = live.uniformFrom(seed); return Array.from({ length: n }, u); }"
)
# With a rate of 0 nothing moves, and the loss of SFT tells which responses are the chosen ones.
STILL = {"run": "r", "loss": "sft", "beta": 0.5, "rate": 0, "shown": []}


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(content=source())
    world = live.world()
    world["asked"] = world["asked"][::6][:4]  # so few that an update takes all pairs
    page.evaluate(START, [live.model(), world])
    page.asked = world["asked"]
    yield page
    page.close()


@pytest.fixture
def ask(page):
    return lambda name, **values: page.evaluate("order => ask(order)", [name, values])


def clicks(number):
    pairs = [pair for pair in load_pairs()[::9] if pair[1] != pair[2]][:number]
    return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in pairs]


def losses_of(ask, rows):
    """−log π of each chosen response under the SFT model."""
    found, _ = ask("clicks", clicks=rows)
    assert (len(found["rows"]), found["yours"]) == (len(rows), True)
    return [-chosen for chosen, _ in found["sft"]]


def labeled(how, pair, uniform):
    prompt, first, second = pair["prompt"], pair["first"], pair["second"]
    rows = [
        {"prompt": prompt, "chosen": a, "rejected": b}
        for a, b in ((first, second), (second, first))
    ]
    gap = judge(prompt, first).reward - judge(prompt, second).reward
    if how == "both":
        return rows
    if how == "true":
        return rows[gap < 0 :][:1] if gap else []
    share = 1 / (1 + math.exp(-gap)) if how == "noisy" else 0.5
    return rows[int(next(uniform) >= share) :][:1]


@pytest.mark.parametrize("how", ["true", "noisy", "coin", "both"])
def test_pairs_are_labeled_by_the_truth_by_chance_or_both_ways(page, ask, how):
    pairs, _ = ask("draw", perPrompt=4, seed=3)
    assert 8 < len(pairs) <= BATCH / 2
    uniform = iter(page.evaluate(UNIFORM, [3, len(pairs)]))
    rows = [row for pair in pairs for row in labeled(how, pair, uniform)]
    told, _ = ask("begin", labels=how, seed=3, **STILL)
    assert told["pairs"] == len(rows)
    _, (update,) = ask("advance", run="r", steps=1)
    assert update["loss"] == pytest.approx(sum(losses_of(ask, rows)) / len(rows))


def test_one_wrong_click_is_the_one_that_the_truth_is_surest_of(ask):
    rows = clicks(12)
    gaps = [judge(r["prompt"], r["chosen"]).reward - judge(r["prompt"], r["rejected"]).reward
            for r in rows]  # fmt: skip
    surest = gaps.index(max(gaps))
    assert gaps.count(max(gaps)) == 1 or surest == 0
    row = rows[surest]
    turned = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
    ask("begin", labels="wrong", clicks=rows, **STILL)
    _, (update,) = ask("advance", run="r", steps=1)
    expected = losses_of(ask, [*rows[:surest], turned, *rows[surest + 1 :]])
    assert update["loss"] == pytest.approx(sum(expected) / len(rows))


def test_every_pair_is_used_once_in_a_fresh_order_before_any_is_used_again(ask):
    rows = clicks(40)
    losses = losses_of(ask, rows)
    seen = {}
    for seed in (0, 1):
        ask("begin", labels="clicks", clicks=rows, seed=seed, **STILL)
        _, updates = ask("advance", run="r", steps=5)  # 160 pairs: each of them four times
        seen[seed] = [update["loss"] for update in updates]
        assert [update["step"] for update in updates] == [1, 2, 3, 4, 5]
        assert BATCH * sum(seen[seed]) == pytest.approx(4 * sum(losses))
        assert abs(seen[seed][0] - sum(losses[:BATCH]) / BATCH) > 1e-6  # not as they stand
    assert abs(seen[0][0] - seen[1][0]) > 1e-6


def test_a_run_begins_at_its_reference(ask):
    ask("begin", labels="clicks", clicks=clicks(20), **{**STILL, "loss": "dpo"})
    _, (update,) = ask("advance", run="r", steps=1)
    assert update["loss"] == pytest.approx(math.log(2))
    assert (update["chosen"], update["rejected"]) == pytest.approx((0, 0), abs=1e-9)


def test_some_prompts_are_taken_at_random(page, ask):
    taken = set()
    for seed in range(6):
        pairs, _ = ask("draw", prompts=2, perPrompt=1, seed=seed)
        assert len(pairs) <= 2
        assert all(pair["first"] != pair["second"] for pair in pairs)
        taken |= {pair["prompt"] for pair in pairs}
    assert taken == {*page.asked}
