"""Random batches of pairs with everything an objective may need, and the cards' formulas evaluated on them."""

import math
from dataclasses import dataclass, replace

import torch

from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.registry import OBJECTIVES


def every_setting():
    """Return (name, settings) for all objectives under their defaults and under each example of their cards."""
    return [(name, dict(settings)) for name in OBJECTIVES for settings in ({}, *OBJECTIVES.card(name).examples)]


def label(case):
    name, settings = case
    return name + "".join(f"-{key}={value}" for key, value in settings.items())


def tokens(generator, rows, width, *, dtype=torch.float64, scale=3.0, even=False):
    """Return random token log-probabilities; ``even`` gives each sequence one value for all its tokens."""
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    draw = torch.rand((rows, 1 if even else width), generator=generator, dtype=torch.float64)
    logp = (-scale * draw - 0.02).expand(rows, width).clone().to(dtype)
    mask = torch.arange(width) < lengths[:, None]
    squares = (-1.5 * torch.rand(rows, width, generator=generator, dtype=torch.float64) - 0.05).to(dtype)
    return TokenLogps(logp=logp, mask=mask, log_sum_sq=squares)


def pairs(seed, rows=8, width=9, *, dtype=torch.float64, even=False, scale=3.0):
    """Return policy and reference of the same random pairs."""
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected, prompt = (tokens(generator, rows, width, dtype=dtype, even=even, scale=scale) for _ in range(3))
    scores = torch.rand(2, rows, generator=generator, dtype=torch.float64).to(dtype).sort(0).values
    policy = PairTokenLogps(
        chosen=chosen,
        rejected=rejected,
        chosen_scores=scores[1] + 0.05,
        rejected_scores=scores[0],
        prompt=prompt,
        draws=(torch.rand(rows, width, generator=generator), torch.rand(rows, width, generator=generator)),
    )
    noise = 0.4 * torch.randn(2, rows, width, generator=generator, dtype=torch.float64).to(dtype)
    reference = replace(
        policy,
        chosen=replace(chosen, logp=(chosen.logp + noise[0]).clamp(max=-0.01)),
        rejected=replace(rejected, logp=(rejected.logp + noise[1]).clamp(max=-0.01)),
    )
    return policy, reference


def reference_for(objective, reference):
    return reference if objective.needs_reference else None


def same_rank(x, y):
    """For each x, the y of the same rank: the slow way."""
    order_x, order_y = (sorted(range(len(v)), key=v.detach().tolist().__getitem__) for v in (x, y))
    found = [None] * len(x)
    for i, j in zip(order_x, order_y, strict=True):
        found[i] = y[j]
    return torch.stack(found)


@dataclass
class Formulas:
    """A card's formulas on a batch: plain Python on float64 tensors, with nothing of the implementation in it."""

    card: object
    names: dict

    def __call__(self, text):
        return eval(text, {"__builtins__": {}}, self.names) + torch.zeros_like(self.names["a"])


def formulas(objective, name, policy, reference):
    """Evaluate the card of ``name`` with an objective's settings; None as reference where there is none."""
    card = OBJECTIVES.card(name)
    p, r = objective.weigh(policy), objective.weigh(reference)
    settings = {field: getattr(objective, field) for field in objective.__dataclass_fields__}
    n_w, n_l = p.chosen_lengths.double(), p.rejected_lengths.double()
    names = {
        **settings,
        **_functions(),
        "a": p.chosen,
        "b": p.rejected,
        "a0": r.chosen,
        "b0": r.rejected,
        "n_w": n_w,
        "n_l": n_l,
        "h_w": p.chosen - r.chosen,
        "h_l": p.rejected - r.rejected,
        "q_w": policy.chosen_scores,
        "q_l": policy.rejected_scores,
        "z": 0.0,
        "k": {"sum": torch.ones_like(n_w), "mean": n_w, "batch_mean": n_w.mean()}.get(settings.get("nll", "sum")),
        "logp_w": policy.chosen.logp[:, 0],
        "logp_l": policy.rejected.logp[:, 0],
    }
    if policy.chosen.log_sum_sq is not None:
        names["W"] = _wpo_weight(policy, settings.get("bounded", True))
    names |= {"D": names["h_w"] - names["h_l"], "m": names["a"] - names["b"]}
    names |= {"a_bar": names["a"] / n_w, "b_bar": names["b"] / n_l}
    names |= {"h_w_bar": names["h_w"] / n_w, "h_l_bar": names["h_l"] / n_l}
    names["D_bar"] = names["h_w_bar"] - names["h_l_bar"]
    for short, text in card.where.items():
        names[short] = eval(text, {"__builtins__": {}}, names)
    return Formulas(card, names)


def _functions():
    def sigma(x):
        return 1 / (1 + torch.exp(-x))

    return {
        "sigma": sigma,
        "log_sigma": lambda x: torch.log(sigma(x)),
        "exp": torch.exp,
        "log": lambda x: torch.log(x) if isinstance(x, torch.Tensor) else math.log(x),
        "log1mexp": lambda x: torch.log(1 - torch.exp(x)),
        "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
        "step": lambda x: (x > 0).double(),
        "same_rank": same_rank,
    }


def _wpo_weight(policy, bounded):
    logs = torch.zeros(len(policy.chosen.logp), dtype=torch.float64)
    for side in (policy.chosen, policy.rejected):
        for row in range(len(logs)):
            kept = side.mask[row]
            logs[row] += (side.logp[row][kept] - side.log_sum_sq[row][kept]).detach().mean()
    return torch.exp(logs).clamp(max=1.0) if bounded else torch.exp(logs)
