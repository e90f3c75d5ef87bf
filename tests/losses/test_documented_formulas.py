"""The formula in each loss's description is what the loss computes."""

import inspect
import re

import pytest
import torch

from dpo_lib.losses import LOSSES

BETA = 0.7
LOGPS = {"PW": -7.0, "PL": -9.5, "pw": -6.6, "pl": -9.2}  # policy and reference, of y_w and y_l
LENGTHS = {"NW": 6.0, "NL": 9.0}
SYMBOLS = {
    r"\log\pi_\theta(y_w\mid x)": "PW",
    r"\log\pi_\theta(y_l\mid x)": "PL",
    "|y_w|": "NW",
    "|y_l|": "NL",
    r"\rho_w": "RW",
    r"\rho_l": "RL",
    r"\ell_w": "MW",
    r"\ell_l": "ML",
    r"\log o_w": "OW",
    r"\log o_l": "OL",
    r"\phi(u_w)": "XW",
    r"\phi(u_l)": "XL",
    r"\lambda_D": "desirable_weight",
    r"\lambda_U": "undesirable_weight",
    "z_0": "kl",
    r"\varepsilon": "label_smoothing",
    r"\beta": "BETA",
    r"\tau": "BETA",
    r"\alpha": "alpha",
    r"\gamma": "gamma",
    r"\delta": "shift",
    r"\Delta": "offset",
    r"\lambda": "penalty",
    r"\log\sigma": "logsigmoid",
    r"\sigma": "sigmoid",
    r"\max": "larger",
    "e^": "exp",
}
OPTIONS = {
    "alpha": 0.3,
    "gamma": 0.4,
    "shift": 0.2,
    "offset": 0.6,
    "penalty": 2.0,
    "label_smoothing": 0.2,
    "kl": 0.15,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.3,
}
FUNCTIONS = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "logsigmoid": torch.nn.functional.logsigmoid,
    "larger": lambda a, b: torch.maximum(torch.as_tensor(a, dtype=torch.float64), b),
}


def formula(loss):
    """What the description says that the loss is, in LaTeX; empty if it says it in words alone."""
    text = inspect.getdoc(loss)
    head = text.partition("\nParameters\n")[0]
    for pattern in (
        r"\.\. math::\s+(.*?)(?:\n\n|\Z)",
        r"the loss\s+is\s+:math:`(.*?)`",
        r"\A[^\n]*?: (?:the square )?:math:`([^`]*)`(?![^\n]* plus )",
    ):
        if found := re.search(pattern, head, re.DOTALL):
            return found[1]
    return ""


def python(latex):
    """The formula as an expression."""
    text = re.sub(r"\\[,;!]|\\[Bb]ig[lr]|\s+(?=[^a-zA-Z])|\n", "", latex).rstrip(",. ")
    text = text.replace("[", "(").replace("]", ")")
    if r"\sum_{y}" in text:
        front, _, summed = text.partition(r"\sum_{y}")
        text = f"{front}({summed.replace('_y', '_w')} + {summed.replace('_y', '_l')})"
    text = re.sub(r"\\t?frac(\d)(\d)", r"(\1/\2)", text)
    for symbol, name in SYMBOLS.items():
        text = text.replace(symbol, f" {name} ")
    while r"\frac" in text:
        text, n = re.subn(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))", text)
        assert n, text
    text = text.replace("{", "(").replace("}", ")").replace("^2", "**2")
    pieces = re.findall(r"\*\*|[A-Za-z_]\w*|[\d.]+|\S", text)
    done = []
    for piece in pieces:
        before = done[-1] if done else "("
        ends = before == ")" or (before[0].isalnum() and before not in FUNCTIONS)
        if ends and (piece == "(" or piece[0].isalnum()):
            done.append("*")
        done.append(piece)
    return " ".join(done)


def values():
    found = {name: torch.tensor(x, dtype=torch.float64) for name, x in {**LOGPS, **LENGTHS}.items()}
    for side in "WL":
        found[f"R{side}"] = found[f"P{side}"] - found[f"p{side.lower()}"]
        found[f"M{side}"] = found[f"P{side}"] / found[f"N{side}"]
        odds = found[f"M{side}"].exp() / (1 - found[f"M{side}"].exp())
        found[f"O{side}"] = odds.log()
        found[f"X{side}"] = found[f"R{side}"].exp() + found[f"R{side}"]  # the link u + log u
    found["h"] = found["RW"] - found["RL"]
    found["z"] = BETA * found["h"]
    return {**found, **OPTIONS, **FUNCTIONS, "BETA": BETA}


WRITTEN = {name: formula(loss) for name, loss in LOSSES.items()}


def test_most_losses_write_their_formula():
    assert sum(map(bool, WRITTEN.values())) > 20


@pytest.mark.parametrize("name", [name for name, latex in WRITTEN.items() if latex])
def test_the_description_has_the_formula_of_the_loss(name):
    takes = inspect.signature(LOSSES[name]).parameters
    options = {key: value for key, value in OPTIONS.items() if key in takes}
    if "chosen_lengths" in takes:
        options |= {"chosen_lengths": LENGTHS["NW"], "rejected_lengths": LENGTHS["NL"]}
    logps = [torch.tensor(LOGPS[key], dtype=torch.float64) for key in ("PW", "PL", "pw", "pl")]
    loss = LOSSES[name](*logps, beta=BETA, **options).losses
    said = eval(python(WRITTEN[name]), values())
    assert said == pytest.approx(loss.item(), rel=1e-9), python(WRITTEN[name])
