"""Every objective that TRL 1.16 has, against TRL's own code: loss and gradient on the same random logits.

``python scripts/studies/objective_parity.py [--json] [--write]`` calls the loss methods of TRL's DPOTrainer,
KTOTrainer, CPOTrainer and ORPOTrainer, unmodified, on a model that gives random logits, and compares with align's
objectives on the same logits. ``--write`` keeps the table in docs/results/objective_parity.md.
"""

import argparse
import importlib.metadata
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from align.objectives.logps import PairTokenLogps, SequenceLogps, TokenLogps
from align.objectives.mixture import Mixture, Part, Smoothed, row_losses
from align.objectives.registry import OBJECTIVES

RESULT = Path("docs/results/objective_parity.md")
PAIRS, TIME, VOCABULARY = 6, 14, 11
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """One loss of TRL and what it is here.

    Attributes:
        trl: what TRL is given.
        ours: name and settings of the objective, or a list of them with weights.
        trainer: dpo, cpo, orpo or kto.
        tolerance: largest absolute difference that float64 (or TRL's own cast to float32) explains.
    """

    trl: dict[str, Any]
    ours: Any
    trainer: str = "dpo"
    tolerance: float = 1e-12
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row is called."""
        said = ", ".join(f"{key}={value}" for key, value in self.trl.items())
        return f"{self.trainer.upper()}Trainer: {said}"


def _cases() -> list[Case]:
    plain = {name: name for name in ("hinge", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired")}
    plain |= {name: name for name in ("apo_zero", "apo_down", "discopop", "sigmoid_norm")} | {"sigmoid": "dpo"}
    cases = [Case({"loss_type": theirs}, {"name": ours, "beta": 0.3}) for theirs, ours in sorted(plain.items())]
    cases += [Case({"loss_type": "ipo"}, {"name": "ipo", "tau": 0.3})]
    cases += [Case({"loss_type": "sft"}, {"name": "sft", "nll": "batch_mean"})]
    for name in ("robust", "exo_pair", "aot", "aot_unpaired"):
        # exo_pair holds epsilon as a float32 tensor in TRL
        ours = {"name": name, "beta": 0.3, "label_smoothing": 0.2}
        tolerance = 2e-7 if name == "exo_pair" else 1e-12
        cases.append(Case({"loss_type": name, "label_smoothing": 0.2}, ours, tolerance=tolerance))
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        for theirs, ours in (("sigmoid", "dpo"), ("hinge", "hinge"), ("sigmoid_norm", "sigmoid_norm")):
            # alpha_divergence is computed in float32 in TRL, whatever comes in
            given = {"name": ours, "beta": 0.3, "f_divergence": divergence}
            cases.append(Case({"loss_type": theirs, "f_divergence_type": divergence}, given, tolerance=_of(divergence)))
        given = {"name": "ipo", "tau": 0.3, "f_divergence": divergence}
        cases.append(Case({"loss_type": "ipo", "f_divergence_type": divergence}, given, tolerance=_of(divergence)))
        for name in ("robust", "exo_pair", "discopop"):
            smoothing = {} if name == "discopop" else {"label_smoothing": 0.2}
            given = {"name": name, "beta": 0.3, "f_divergence": divergence, **smoothing}
            tolerance = max(_of(divergence), 1e-6 if name == "exo_pair" else 0.0)
            theirs = {"loss_type": name, "f_divergence_type": divergence, **smoothing}
            cases.append(Case(theirs, given, tolerance=tolerance))
    cases += [
        Case({"loss_type": "sigmoid", "ld_alpha": 0.4}, {"name": "ld_dpo", "beta": 0.3, "alpha": 0.4}),
        Case({"loss_type": "sigmoid", "use_weighting": True}, {"name": "wpo", "beta": 0.3, "bounded": False}),
        Case(
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
            [{"name": "dpo", "beta": 0.3}, {"name": "sft", "nll": "batch_mean", "weight": 0.5}],
        ),
        Case(
            {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
            [
                {"name": "dpo", "beta": 0.3, "weight": 0.8},
                {"name": "bco_pair", "beta": 0.3, "weight": 0.2},
                {"name": "sft", "nll": "batch_mean"},
            ],
        ),
    ]
    nll = {"nll": "batch_mean", "nll_weight": 0.7}
    cases += [
        Case({"loss_type": kind, "cpo_alpha": 0.7}, {"name": "cpo", "beta": 0.3, "loss_type": kind, **nll}, "cpo")
        for kind in ("sigmoid", "hinge", "ipo")
    ]
    cases += [
        Case(
            {"loss_type": "sigmoid", "cpo_alpha": 0.7, "label_smoothing": 0.1},
            {"name": "cpo", "beta": 0.3, "label_smoothing": 0.1, **nll},
            "cpo",
        ),
        Case({"loss_type": "simpo", "cpo_alpha": 0.0}, {"name": "simpo", "beta": 0.3, "gamma": 0.5}, "cpo"),
        Case(
            {"loss_type": "simpo", "cpo_alpha": 0.7},
            [
                {"name": "simpo", "beta": 0.3, "gamma": 0.5},
                {"name": "sft", "nll": "batch_mean", "weight": 0.7},
            ],
            "cpo",
        ),
        Case(
            {"loss_type": "simpo", "cpo_alpha": 0.0, "alpha": 0.25},
            {"name": "alphapo", "beta": 0.3, "gamma": 0.5, "alpha": 0.25},
            "cpo",
        ),
        # ORPOTrainer casts log-probabilities to float32
        Case({}, {"name": "orpo", "lam": 0.3, "nll": "batch_mean_with_prompt"}, "orpo", tolerance=1e-6),
        Case({"loss_type": "kto"}, {"name": "kto", "beta": 0.3}, "kto"),
        Case(
            {"loss_type": "kto", "desirable_weight": 1.5, "undesirable_weight": 0.5},
            {"name": "kto", "beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5},
            "kto",
        ),
        Case({"loss_type": "apo_zero_unpaired"}, {"name": "apo_zero", "beta": 0.3}, "kto"),
    ]
    return cases


def _of(divergence: str) -> float:
    return 2e-6 if divergence == "alpha_divergence" else 1e-12


CASES = _cases()


@dataclass
class Batch:
    """Random ids and logits of PAIRS chosen rows and as many rejected ones, for a policy and a reference."""

    ids: torch.Tensor
    attention: torch.Tensor
    completion: torch.Tensor
    policy: torch.Tensor
    reference: torch.Tensor

    @classmethod
    def random(cls, seed: int) -> "Batch":
        """Return the batch of a seed."""
        generator = torch.Generator().manual_seed(seed)
        prompts = torch.randint(2, 5, (PAIRS,), generator=generator).repeat(2)
        lengths = torch.randint(1, TIME - 4, (2 * PAIRS,), generator=generator)
        place = torch.arange(TIME)
        real = place < (prompts + lengths)[:, None]
        ids = torch.randint(0, VOCABULARY, (2 * PAIRS, TIME), generator=generator)
        shape = (2 * PAIRS, TIME, VOCABULARY)
        logits = torch.randn(shape, generator=generator, dtype=torch.float64)
        moved = logits + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        return cls(ids, real.long(), real & (place >= prompts[:, None]), moved.requires_grad_(), logits)


class GivenLogits(nn.Module):
    """A model that gives logits, in all the ways TRL's trainers ask a model for them."""

    is_gradient_checkpointing = False

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, input_ids: Any = None, *, labels: Any = None, **_: Any) -> SimpleNamespace:
        """Return logits, and where there are labels what TRL's fused head would make of them."""
        if labels is None:
            return SimpleNamespace(logits=self.logits)
        logp, squares = _logp(self.logits, labels.clamp(min=0))
        ignored = labels[:, 1:] == -100
        zeros = torch.zeros_like(logp)
        metrics = {"entropy": zeros, "mean_logits": zeros, "is_top1": zeros.bool()}
        return SimpleNamespace(log_probs=logp.masked_fill(ignored, 0.0), log_sum_sq_probs=squares, **metrics)


def _logp(logits: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logp of tokens 1.. and the log of the sum of squared probabilities at each."""
    normal = logits[:, :-1].log_softmax(-1)
    return normal.gather(-1, ids[:, 1:, None])[..., 0], torch.logsumexp(2 * normal, -1)


def theirs(case: Case, batch: Batch) -> torch.Tensor:
    """Return TRL's loss."""
    return {"dpo": _dpo, "cpo": _cpo, "orpo": _orpo, "kto": _kto}[case.trainer](case, batch)


def _trainer(**settings: Any) -> Any:
    """Return a stand-in for a trainer: what the loss methods of TRL's trainers read of ``self``."""

    class Metrics(dict):
        def __missing__(self, key: str) -> list[Any]:
            self[key] = []
            return self[key]

    same = {name: lambda value: value for name in ("gather", "gather_for_metrics", "unwrap_model")}
    accelerator = SimpleNamespace(device=torch.device("cpu"), **same)
    base = {"accelerator": accelerator, "aux_loss_enabled": False, "_metrics": {"train": Metrics()}, "_tp_size": 1}
    return SimpleNamespace(**{**base, "_total_train_tokens": 0, "beta": 0.3, **settings})


def _dpo(case: Case, batch: Batch) -> torch.Tensor:
    from trl import DPOTrainer

    given = {"loss_weights": None, "label_smoothing": 0.0, "ld_alpha": None, "use_weighting": False, **case.trl}
    kinds = given["loss_type"] if isinstance(given["loss_type"], list) else [given["loss_type"]]
    policy = GivenLogits(batch.policy)
    trainer = _trainer(
        model=policy.train(),
        ref_model=GivenLogits(batch.reference),
        loss_types=kinds,
        loss_weights=given["loss_weights"] or [1.0] * len(kinds),
        f_divergence_type=given.get("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=0.5,
        label_smoothing=given["label_smoothing"],
        ld_alpha=given["ld_alpha"],
        use_weighting=given["use_weighting"],
        precompute_ref_logps=False,
        args=SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None),
    )
    if trainer.f_divergence_type == "alpha_divergence":  # knows three number types, float64 not among them
        trainer.ref_model, policy = GivenLogits(batch.reference.float()), GivenLogits(batch.policy.float())
    inputs = {"input_ids": batch.ids, "attention_mask": batch.attention, "completion_mask": batch.completion.long()}
    return DPOTrainer._compute_loss(trainer, policy, inputs, False)


def _paired(batch: Batch) -> dict[str, torch.Tensor]:
    rows = {"chosen": slice(0, PAIRS), "rejected": slice(PAIRS, None)}
    labels = batch.ids.masked_fill(~batch.completion, -100)
    return {
        f"{side}_{name}": values[part]
        for side, part in rows.items()
        for name, values in (("input_ids", batch.ids), ("attention_mask", batch.attention), ("labels", labels))
    }


def _bound(trainer: Any, cls: Any, *methods: str) -> Any:
    for name in methods:
        found = cls.__dict__[name]
        plain = isinstance(found, staticmethod)
        setattr(trainer, name, getattr(cls, name) if plain else found.__get__(trainer))
    return trainer


def _cpo(case: Case, batch: Batch) -> torch.Tensor:
    from trl.experimental.cpo import CPOTrainer

    settings = {"alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": 0.5, **case.trl}
    trainer = _trainer(is_encoder_decoder=False, pad_token_id=0, **settings)
    _bound(trainer, CPOTrainer, "cpo_loss", "concatenated_forward", "concatenated_inputs", "get_batch_logps")
    return CPOTrainer.get_batch_loss_metrics(trainer, GivenLogits(batch.policy), _paired(batch))[0]


def _orpo(case: Case, batch: Batch) -> torch.Tensor:
    from trl.experimental.orpo import ORPOTrainer

    trainer = _trainer(is_encoder_decoder=False, padding_value=0, **case.trl)
    _bound(trainer, ORPOTrainer, "odds_ratio_loss", "concatenated_forward", "concatenated_inputs", "get_batch_logps")
    return ORPOTrainer.get_batch_loss_metrics(trainer, GivenLogits(batch.policy), _paired(batch))[0]


def _kto(case: Case, batch: Batch) -> torch.Tensor:
    from trl import KTOTrainer

    policy = GivenLogits(batch.policy)
    trainer = _trainer(
        model=policy.train(),
        ref_model=GivenLogits(batch.reference),
        loss_type=case.trl["loss_type"],
        desirable_weight=case.trl.get("desirable_weight", 1.0),
        undesirable_weight=case.trl.get("undesirable_weight", 1.0),
        calculate_KL=case.trl["loss_type"] == "kto",
        precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    _bound(trainer, KTOTrainer, "_compute_kl_logps")
    names = {"input_ids": batch.ids, "attention_mask": batch.attention, "completion_mask": batch.completion.long()}
    # The mismatched rows are the rows themselves here: both sides see the same reference point.
    inputs = {**names, **{f"KL_{name}": value for name, value in names.items()}, "label": _labels()}
    return KTOTrainer._compute_loss(trainer, policy, inputs, False)


def _labels() -> torch.Tensor:
    return torch.arange(2 * PAIRS) < PAIRS


def ours(case: Case, batch: Batch) -> torch.Tensor:
    """Return align's loss: the mean over pairs, or over completions."""
    objective = _objective(case.ours)
    if case.trainer == "kto":
        rows = [_tokens(logits, batch, batch.completion).summed() for logits in (batch.policy, batch.reference)]
        point = (rows[0].logps - rows[1].logps).detach().mean() if objective.needs_mismatched else None
        policy = SequenceLogps(logps=rows[0].logps, lengths=rows[0].lengths, baseline=point)
        return row_losses(objective, policy, rows[1], _labels()).mean()
    pairs = [_pairs(logits, batch) for logits in (batch.policy, batch.reference)]
    return objective.of_tokens(pairs[0], pairs[1] if objective.needs_reference else None).mean()


def _objective(given: Any) -> Any:
    if isinstance(given, list):
        parts = ({"weight": 1.0, **part} for part in given)
        return Mixture(parts=tuple(Part(weight=part.pop("weight"), objective=_objective(part)) for part in parts))
    settings = dict(given)
    name = settings.pop("name")
    if "label_smoothing" in settings and "label_smoothing" not in OBJECTIVES[name].__dataclass_fields__:
        smoothing = settings.pop("label_smoothing")
        return Smoothed(objective=OBJECTIVES.build(name, **settings), label_smoothing=smoothing)
    return OBJECTIVES.build(name, **settings)


def _pairs(logits: torch.Tensor, batch: Batch) -> PairTokenLogps:
    whole, prompt = _tokens(logits, batch, batch.completion), batch.attention.bool() & ~batch.completion
    return PairTokenLogps(
        chosen=whole.rows(0, PAIRS),
        rejected=whole.rows(PAIRS, 2 * PAIRS),
        prompt=_tokens(logits, batch, prompt).rows(0, PAIRS),
    )


def _tokens(logits: torch.Tensor, batch: Batch, scored: torch.Tensor) -> TokenLogps:
    logp, squares = _logp(logits, batch.ids)
    kept = scored[:, 1:]
    order = kept.long().argsort(dim=1, descending=True, stable=True)  # completion tokens to the front
    mask = kept.gather(1, order)
    return TokenLogps(logp=logp.gather(1, order), mask=mask, log_sum_sq=squares.gather(1, order).detach())


def compare(case: Case) -> dict[str, Any]:
    """Return the largest absolute differences of a case over all seeds."""
    value = gradient = 0.0
    for seed in SEEDS:
        batch = Batch.random(seed)
        found = [_value_and_gradient(loss, case, batch) for loss in (ours, theirs)]
        value = max(value, abs(float(found[0][0] - found[1][0])))
        gradient = max(gradient, float((found[0][1] - found[1][1]).abs().max()))
    return {"trl": case.name, "align": _said(case.ours), "value": value, "gradient": gradient, "bound": case.tolerance}


def _value_and_gradient(
    loss: Callable[[Case, Batch], torch.Tensor], case: Case, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of trl.experimental
        value = loss(case, batch)
    (slope,) = torch.autograd.grad(value, batch.policy)
    return value.detach().double(), slope.double()


def _said(given: Any) -> str:
    if isinstance(given, list):
        return " + ".join(_said(part) for part in given)
    return ", ".join([given["name"], *(f"{key}={value}" for key, value in given.items() if key != "name")])


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = ["| TRL | align | value | gradient |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['trl']} | {r['align']} | {r['value']:.1e} | {r['gradient']:.1e} |" for r in rows]
    return "\n".join(lines)


def main() -> None:
    """Compare, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULT}")
    arguments = parser.parse_args()
    rows = [compare(case) for case in CASES]
    print(json.dumps({"rows": rows}) if arguments.json else table(rows))
    if arguments.write:
        versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("trl", "torch"))
        RESULT.write_text(f"{HEAD.format(versions=versions, seeds=len(SEEDS), rows=PAIRS)}\n{table(rows)}\n")


HEAD = """# Objectives against TRL's own code

Command: `python scripts/studies/objective_parity.py --write` ({versions}). The loss methods of TRL's trainers are
called unmodified on random logits in float64 ({seeds} batches of {rows} pairs); align's objectives see the same logits.
The columns are the largest absolute difference of the batch's loss, and of its gradient by any logit. Where a
difference is above 1e-12, TRL computes that part in float32: `alpha_divergence`, the epsilon of `exo_pair`, and
`ORPOTrainer`.
"""


if __name__ == "__main__":
    main()
