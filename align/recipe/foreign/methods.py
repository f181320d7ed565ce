"""Which of TRL's trainers a recipe is for, and the losses of those beside ``DPOTrainer``.

No key of a file names the trainer; keys and losses that only one of them has do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from align.recipe.foreign.asked import Asked, Part, likelihood
from align.recipe.foreign.draft import Draft, Setting
from align.recipe.foreign.given import Given
from align.recipe.foreign.losses import dpo_parts

_TOKENS = "a mean over the batch's tokens"
_SMOOTHED_SIMPO = "TRL keeps the margin gamma for a swapped label, label_smoothing here swaps all; it is not set"


def kto_parts(asked: Asked) -> list[Part]:
    """Return the parts that train what ``KTOTrainer`` would, on single completions.

    Raises:
        RecipeError: for a loss that has no counterpart.
    """
    kind = _one(asked, "kto", ("kto", "apo_zero_unpaired"))
    asked.draft.set("data.unpaired", True, "KTO", "pairs are taken apart, as there")
    weights = [asked.setting(f"{side}_weight", 1.0) for side in ("desirable", "undesirable")]
    part = {"name": asked.name("kto" if kind == "kto" else "apo_zero"), "beta": asked.setting("beta", 0.1)}
    if kind == "kto":
        return [{**part, "desirable_weight": weights[0], "undesirable_weight": weights[1]}]
    if weights[0].value == weights[1].value:
        return [{**part, "weight": weights[0]}]
    for side, weight in zip(("desirable", "undesirable"), weights, strict=True):
        text = f"{weight.value}: apo_zero weighs both sides alike; a column 'weight' of the rows weighs them"
        asked.decide(f"{side}_weight", text)
    return [part]


def cpo_parts(asked: Asked) -> list[Part]:
    """Return the parts that train what ``CPOTrainer`` would: CPO, SimPO and AlphaPO.

    Raises:
        RecipeError: for a loss that has no counterpart.
    """
    kind = _one(asked, "sigmoid", ("sigmoid", "hinge", "ipo", "simpo", "alphapo"))
    share = asked.setting("cpo_alpha", 1.0)
    if kind in ("simpo", "alphapo"):
        return _simpo_parts(asked, kind, share)
    part = {"name": asked.name("cpo"), "beta": asked.setting("beta", 0.1), "loss_type": Setting(value=kind)}
    part |= {"nll_weight": share, "nll": Setting(value="batch_mean", source=_TOKENS)}
    if asked.take("alpha"):
        text = f"{asked.take('alpha')}: it bends the rewards of {kind} too there; here only those of alphapo"
        asked.decide("alpha", text)
    if kind == "sigmoid" and asked.take("label_smoothing"):
        part["label_smoothing"] = asked.setting("label_smoothing", 0.0)
    else:
        asked.leave("label_smoothing", f"TRL ignores it for {kind}, with a warning")
    asked.leave("simpo_gamma", "belongs to loss_type: simpo")
    return [part]


def _simpo_parts(asked: Asked, kind: str, share: Setting) -> list[Part]:
    bend = asked.take("alpha", 0.0)
    part = {"name": asked.name("alphapo" if bend else "simpo"), "beta": asked.setting("beta", 0.1)}
    part["gamma"] = asked.setting("simpo_gamma", 0.5)
    if bend:
        part["alpha"] = asked.setting("alpha", 0.0)
    _refuse_smoothing(asked)
    if kind == "alphapo":
        asked.leave("cpo_alpha", "TRL sets it to 0 with loss_type: alphapo")
        return [part]
    return [part, likelihood(share, "CPOTrainer adds it")] if share.value else [part]


def orpo_parts(asked: Asked) -> list[Part]:
    """Return the part that trains what ``ORPOTrainer`` would."""
    nll = Setting(value="batch_mean_with_prompt", source="a mean over the batch's tokens, prompts included")
    return [{"name": Setting(value="orpo", source=asked.loss), "lam": asked.setting("beta", 0.1), "nll": nll}]


def simpo_parts(asked: Asked) -> list[Part]:
    """Return the parts that train what the trainer of SimPO's authors would.

    Raises:
        RecipeError: for its hinge loss, which has no counterpart.
    """
    _one(asked, "sigmoid", ("sigmoid",))
    beta = asked.setting("beta", 2.0, default_of="SimPO")
    ratio = asked.setting("gamma_beta_ratio", 0.25, default_of="SimPO")
    gamma = Setting(
        value=round(beta.value * ratio.value, 12),
        source=ratio.source,
        note=f"{ratio.value} times beta: the margin itself",
    )
    _refuse_smoothing(asked)
    part = {"name": Setting(value="simpo", source=asked.loss), "beta": beta, "gamma": gamma}
    share = asked.setting("sft_weight", 0.0)
    return [part, likelihood(share)] if share.value else [part]


def _refuse_smoothing(asked: Asked) -> None:
    share = asked.take("label_smoothing")
    if share:
        asked.decide("label_smoothing", f"{share}: {_SMOOTHED_SIMPO}")
    else:
        asked.leave("label_smoothing", "nothing was asked for")


def _one(asked: Asked, default: str, known: tuple[str, ...]) -> str:
    """Return the one loss of a trainer that takes no list."""
    said = asked.take("loss_type", default)
    kinds = said if isinstance(said, list) else [said]
    if len(kinds) != 1 or kinds[0] not in known:
        message = f"loss {said!r} has no counterpart here; of this trainer there are: {', '.join(known)}"
        raise asked.refuse("loss_type", message)
    return str(kinds[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One of TRL's trainers.

    Attributes:
        title: what it trains.
        parts: what its loss is here.
        signs: keys that no other trainer has.
        losses: losses that no other trainer has.
        defaults: settings of ours, where a file is silent, that differ from those of DPO.
        defaults_of: whose they are.
    """

    title: str
    parts: Callable[[Asked], list[Part]]
    signs: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    defaults: tuple[tuple[str, Any], ...] = ()
    defaults_of: str = "TRL"


_SIMPO_DEFAULTS = (
    *(("data.max_length", 512), ("data.truncation", "keep_end"), ("trainer.learning_rate", 5e-5)),
    *(("trainer.bf16", False), ("trainer.gradient_checkpointing", False), ("trainer.logging_steps", 500)),
)
METHODS: dict[str, Method] = {
    "dpo": Method(title="DPO", parts=dpo_parts),
    "kto": Method(
        title="KTO",
        parts=kto_parts,
        signs=("desirable_weight", "undesirable_weight"),
        losses=("kto", "apo_zero_unpaired"),
        defaults=(("trainer.train_sampling_strategy", "sequential"),),
    ),
    "cpo": Method(title="CPO", parts=cpo_parts, signs=("cpo_alpha", "simpo_gamma"), losses=("simpo", "alphapo")),
    "orpo": Method(title="ORPO", parts=orpo_parts),
    "simpo": Method(
        title="SimPO",
        parts=simpo_parts,
        signs=("gamma_beta_ratio", "sft_weight"),
        defaults=_SIMPO_DEFAULTS,
        defaults_of="SimPO",
    ),
}
"""By name, as ``--method`` takes it."""


def method_of(given: Given) -> tuple[str, str]:
    """Return the method that a file of TRL is for, and the key that says so; DPO, and nothing, where none does."""
    for name, method in METHODS.items():
        for sign in method.signs:
            if sign in given.nodes:
                return name, sign
    said = given.peek("loss_type")
    kinds = said if isinstance(said, list) else [said]
    named = next((name for name, method in METHODS.items() if set(method.losses) & set(map(str, kinds))), "dpo")
    return named, "loss_type" if said is not None else ""


def sync_reference(given: Given, draft: Draft) -> None:
    """Set ``model.reference_sync`` where TRL's reference follows the policy."""
    keys = {"ref_model_mixup_alpha": ("alpha", 0.6), "ref_model_sync_steps": ("every", 512)}
    if given.take("sync_ref_model") is True:
        for key, (ours, default) in keys.items():
            source = key if given.peek(key) is not None else "TRL's default"
            draft.set(f"model.reference_sync.{ours}", given.take(key, default), f"sync_ref_model, {source}")
        return
    for key in ("sync_ref_model", *keys):
        if key in given.nodes:
            given.take(key)
            draft.leave(key, "sync_ref_model is not true, so the reference does not move")
