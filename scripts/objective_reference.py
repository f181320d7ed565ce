"""Writes docs/objectives.md from the code: ``python scripts/objective_reference.py > docs/objectives.md``."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from align.objectives.describe import CHECKED, details, formula_lines
from align.objectives.registry import HOMES, OBJECTIVES

HEAD = """# Objectives

Made from the code by `python scripts/objective_reference.py > docs/objectives.md`; a test holds it fresh. The same is
said by `align objectives ls` and `align objectives show NAME`, each with `--json`.

An objective is **token weighting → score → link** (plus, for some, a likelihood term): tokens become the
log-probability of a sequence, sequences become a score, the score becomes the loss of a pair. The loss is minimised.

## Signs

| sign | meaning |
| --- | --- |
| a, b | log-probability of the chosen and of the rejected completion under the policy, summed over tokens, in nats |
| a0, b0 | the same under the reference |
| n_w, n_l | their lengths in tokens |
| h_w = a − a0, h_l = b − b0 | log-ratios; Δ = h_w − h_l, m = a − b |
| ā = a / n_w, b̄ = b / n_l, h̄_w, h̄_l, Δ̄ = h̄_w − h̄_l | the same a token |
| σ, relu, 1[x > y] | sigmoid, max(0, x), 1 where true and 0 elsewhere |
| q_w, q_l | scores of the completions from the data (columns `chosen_score`, `rejected_score`) |
| k | what a log-likelihood is divided by: 1, n_w, or the batch's mean n_w, as the setting `nll` says |
| z | mean log-ratio on completions of other prompts, at least 0, without gradient |
| d_w = −∂loss/∂a, d_l = ∂loss/∂b | how hard the loss pulls the chosen up and pushes the rejected down |

A gradient step changes a by about η(d_w‖∇a‖² − d_l⟨∇a, ∇b⟩) and b by η(d_w⟨∇a, ∇b⟩ − d_l‖∇b‖²): whether the chosen
rises is decided by d_w/d_l and by how alike the two gradients are (Yuan et al., 2024, arXiv:2410.13828). Every
formula here, and every d_w and d_l, is evaluated in the tests and equals the code that trains to 1e-11 (value) and
1e-12 (d_w, d_l by automatic differentiation); where TRL 1.16 has the loss, value and gradient equal TRL's
([results/objective_parity.md](results/objective_parity.md)).

## What goes with them

- **Mixtures**: `objective: [{name: dpo, beta: 0.1}, {name: sft, weight: 0.2}]`, a weighted sum; logged rewards are
  the first part's.
- **Weights of rows**: a column `weight`.
- **Label smoothing**: `label_smoothing: 0.1` in the same mapping; the expected loss where chosen and rejected are
  exchanged with that probability. A likelihood of the chosen that is part of the loss (cpo, slic_hf, rrhf, orpo,
  iterative_rpo, mpo) stays with the chosen, as in TRL's CPOTrainer. cdpo, robust, exo_pair, aot and aot_unpaired have
  a setting of that name with a meaning of their own.
- **A moving reference**, with every objective that has one: `model.reference_sync: {alpha: 0.6, every: 512}` (TR-DPO,
  arXiv:2404.09656).
- **f-divergences**, with the log-ratio family: `f_divergence` and `f_alpha` replace each log-ratio h by s(h), and
  d_w, d_l multiply by s'(h) (arXiv:2309.16240): forward_kl 1 − e^(−h); js_divergence log 2 + log σ(h);
  alpha_divergence (e^((α−1)h) − 1)/(α − 1).

Only what an objective reads is computed: no reference model is loaded for one that needs none, and no forward is run
on a side that it does not read (sft: the rejected; npo: the chosen), except in evaluation.

## Where formulas have no finite value

Two bounds of `align.objectives.numerics`: `NEAREST_TO_CERTAIN`, log(1 − p) at p = 1 (orpo, unlikelihood) goes on as
its tangent above log p = −1e-8: slope −1e8, right sign. `LARGEST_EXPONENT`, exponentials (forward_kl,
alpha_divergence, alphapo, discopop) go on as their tangent above an exponent of 30. Elsewhere values are exact.
Tested in float32 and under bfloat16 autocast at log-probabilities 0, −1e-7, −1, −100 and −1e4.

## All of them

The last column is of a pair of 10 and 20 tokens, half a nat each."""


def main() -> None:
    """Print the page."""
    known = [details(name) for name in OBJECTIVES]
    print(HEAD)
    print("\n".join(overview(known)))
    for home in HOMES:
        module = import_module(home)
        inside = [entry for entry in known if OBJECTIVES[entry["name"]].__module__ == home]
        print(f"\n## {(module.__doc__ or '').splitlines()[0].rstrip('.')}")
        for entry in inside:
            print("\n" + "\n".join(section(entry)))


def overview(known: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of all objectives."""
    yield "| name | what it is | needs | data | d_w / d_l at the start |"
    yield "| --- | --- | --- | --- | --- |"
    for entry in known:
        needs = ", ".join(entry["needs"]) or "nothing"
        alone = " (or single completions)" if entry["trains_unpaired"] and entry["data"] == "pairs" else ""
        link = f"[{entry['name']}](#{entry['name']})"
        yield f"| {link} | {entry['title']} | {needs} | {entry['data']}{alone} | {start(entry)} |"


def start(entry: dict[str, Any]) -> str:
    """Return d_w / d_l where policy and reference agree, on a pair of 10 and 20 tokens of half a nat each."""
    import torch

    from align.objectives.incentives import incentives
    from align.objectives.logps import PairTokenLogps, TokenLogps

    def side(length: int) -> TokenLogps:
        shape = (1, length)
        return TokenLogps(
            logp=torch.full(shape, -0.5, dtype=torch.float64),
            mask=torch.ones(shape, dtype=torch.bool),
            log_sum_sq=torch.full(shape, -1.0, dtype=torch.float64),
        )

    pair = PairTokenLogps(
        chosen=side(10),
        rejected=side(20),
        chosen_scores=torch.tensor([1.0], dtype=torch.float64),
        rejected_scores=torch.tensor([0.0], dtype=torch.float64),
        prompt=side(5),
        draws=(torch.linspace(0, 0.9, 10)[None], torch.linspace(0, 0.9, 20)[None]),
    )
    objective = OBJECTIVES.build(entry["name"])
    found = incentives(objective, pair, pair if objective.needs_reference else None)
    chosen, rejected = float(found.chosen.max()), float(found.rejected.max())
    return f"{chosen + 0.0:.3g} / {rejected + 0.0:.3g}"


def section(entry: dict[str, Any]) -> Iterator[str]:
    """Yield the section of an objective."""
    yield f"### {entry['name']}\n"
    also = f" Also called {', '.join(f'`{a}`' for a in entry['aliases'])}." if entry["aliases"] else ""
    yield f"**{entry['title']}.** {entry['does']}{also}\n"
    for name, formula in formula_lines(entry):
        yield f"- {name.strip()}: `{formula}`"
    yield ""
    if entry["settings"]:
        yield "| setting | default | meaning |\n| --- | --- | --- |"
        for setting in entry["settings"]:
            yield f"| `{setting['name']}` | `{setting['default']}` | {setting['meaning']} |"
        yield ""
    yield f"Source: {entry['source']}. Formula: {CHECKED[entry['checked']]}."
    notes = {"Departs": entry["departs"], "Diverges": entry["diverges"]}
    yield from (f"{name}: {text}" for name, text in notes.items() if text)
    if entry["limits"]:
        yield f"Limits, each tested: it {'; it '.join(entry['limits'])}."
    if entry["couples_pairs"]:
        yield "Couples the pairs of a batch; under accumulation those of a micro-batch."


if __name__ == "__main__":
    main()
