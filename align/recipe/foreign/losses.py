"""Losses of TRL's ``DPOTrainer`` as objectives of ours, by what TRL 1.16 computes and not by names alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from align.recipe.foreign.asked import Asked, Part, likelihood
from align.recipe.foreign.draft import Setting

REVERSE_KL = "reverse_kl"
FREE = ("sigmoid", "hinge", "ipo")
"""Losses that former versions computed without a reference; ours is cpo without its likelihood term."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one loss of TRL's is here.

    Attributes:
        name: our objective.
        strength: its setting for TRL's ``beta``; empty for none.
        smooths: whether TRL 1.16 reads ``label_smoothing`` for it.
        diverges: whether TRL 1.16 takes another f-divergence for it.
        settings: settings that follow from the name.
        note: what to know.
    """

    name: str
    strength: str = "beta"
    smooths: bool = False
    diverges: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


LOSSES: dict[str, Loss] = {
    "sigmoid": Loss(name="dpo", diverges=True),
    "hinge": Loss(name="hinge", diverges=True),
    "ipo": Loss(name="ipo", strength="tau", diverges=True),
    "exo_pair": Loss(name="exo_pair", smooths=True, diverges=True),
    "nca_pair": Loss(name="nca_pair"),
    "robust": Loss(name="robust", smooths=True, diverges=True),
    "bco_pair": Loss(name="bco_pair"),
    "sppo_hard": Loss(name="sppo_hard"),
    "aot": Loss(name="aot", smooths=True),
    "aot_unpaired": Loss(name="aot_unpaired", smooths=True),
    "aot_pair": Loss(name="aot_unpaired", smooths=True, note="aot_pair is the former name of aot_unpaired"),
    "apo_zero": Loss(name="apo_zero"),
    "apo_down": Loss(name="apo_down"),
    "discopop": Loss(name="discopop", diverges=True),
    "sft": Loss(name="sft", strength="", diverges=True, settings={"nll": "batch_mean"}),
    "sigmoid_norm": Loss(name="sigmoid_norm", diverges=True),
}
"""Every ``loss_type`` of ``DPOConfig``, and a former one."""


def dpo_parts(asked: Asked) -> list[Part]:
    """Return the parts of our objective that train what ``DPOTrainer`` would.

    Raises:
        RecipeError: for a loss that has no counterpart, or weights that fit no list of losses.
    """
    kinds, weights = _kinds(asked)
    parts = [_part(asked, kind, weight) for kind, weight in zip(kinds, weights, strict=True)]
    _without_reference(asked, kinds, parts)
    _diverge(asked, kinds, parts)
    _desensitise(asked, parts)
    _weigh(asked, parts)
    _leave_unread(asked, kinds)
    share = asked.take("rpo_alpha")
    if share:
        parts.append(likelihood(Setting(value=share, source=asked.key("rpo_alpha"))))
    return parts


def _kinds(asked: Asked) -> tuple[list[str], list[float]]:
    """Return the losses that count, and their weights."""
    said = asked.take("loss_type", "sigmoid")
    kinds = [str(kind) for kind in said] if isinstance(said, list) else [str(said)]
    weights = asked.take("loss_weights") or [1.0] * len(kinds)
    if len(weights) != len(kinds):
        raise asked.refuse("loss_weights", f"{len(weights)} weights for {len(kinds)} losses; TRL refuses that too")
    if min(weights) < 0 or not any(weights):
        raise asked.refuse("loss_weights", f"weights must be at least 0, and one of them more, got {weights}")
    for kind in kinds:
        if kind not in LOSSES:
            message = f"loss {kind!r} has no counterpart here; losses of TRL's DPOTrainer: {', '.join(LOSSES)}"
            raise asked.refuse("loss_type", message)
    used = [(kind, weight) for kind, weight in zip(kinds, weights, strict=True) if weight]
    return [kind for kind, _ in used], [weight for _, weight in used]


def _part(asked: Asked, kind: str, weight: float) -> Part:
    loss = LOSSES[kind]
    part = {"name": asked.name(loss.name, loss.note)}
    if loss.strength:
        part[loss.strength] = asked.setting("beta", 0.1)
    if kind == "discopop":
        part["tau"] = asked.setting("discopop_tau", 0.05)
    if kind == "exo_pair" and not asked.take("label_smoothing"):
        text = "TRL refuses exo_pair without it; 1e-3, which the paper takes, stands there"
        asked.decide("label_smoothing", text)
        part["label_smoothing"] = Setting(value=1e-3)
    elif loss.smooths:
        part["label_smoothing"] = asked.setting("label_smoothing", 0.0)
    part |= {key: Setting(value=value, source=f"what {kind} is there") for key, value in loss.settings.items()}
    if asked.gave("loss_weights"):
        part["weight"] = Setting(value=weight, source=asked.key("loss_weights"))
    return part


def _without_reference(asked: Asked, kinds: list[str], parts: list[Part]) -> None:
    if asked.take("reference_free") is not True:
        asked.leave("reference_free", "nothing was asked for")
        return
    others = [kind for kind in kinds if kind not in (*FREE, "sft")]
    if others:
        text = f"True: {', '.join(others)} without a reference has no counterpart; the reference is read"
        asked.decide("reference_free", text)
        return
    for kind, part in zip(kinds, parts, strict=True):
        if kind in FREE:
            beta = part.pop(LOSSES[kind].strength)
            weight = {"weight": part.pop("weight")} if "weight" in part else {}
            source = f"{part['name'].source}, reference_free"
            part["name"] = Setting(value="cpo", source=source, note="without a likelihood term it reads what that did")
            part |= {"beta": beta, "loss_type": Setting(value=kind), "nll_weight": Setting(value=0.0), **weight}


def _diverge(asked: Asked, kinds: list[str], parts: list[Part]) -> None:
    """Set ``f_divergence`` where TRL applies it."""
    kind, order = asked.take("f_divergence_type", REVERSE_KL), asked.setting("f_alpha_divergence_coef", 0.5)
    refused = [name for name in kinds if not LOSSES[name].diverges]
    reads = [part for part in parts if part["name"].value not in ("sft", "cpo")]
    if kind != "alpha_divergence":
        asked.leave("f_alpha_divergence_coef", "belongs to f_divergence_type: alpha_divergence")
    if kind == REVERSE_KL:
        asked.leave("f_divergence_type", "it is the reverse KL, unless an objective says otherwise")
    elif refused:
        asked.decide(
            "f_divergence_type", f"{kind!r}: TRL 1.16 refuses it with {', '.join(refused)}, nor is it set here"
        )
    elif kind == "alpha_divergence" and abs(order.value - 1) < 1e-6:
        asked.leave("f_divergence_type", "of order 1 it is the reverse KL, there too")
    elif any(part["name"].value == "cpo" for part in parts):
        asked.decide("f_divergence_type", f"{kind!r}: it has no counterpart without a reference")
    else:
        for part in reads:
            part["f_divergence"] = Setting(value=kind, source=asked.key("f_divergence_type"))
            if kind == "alpha_divergence":
                part["f_alpha"] = order


def _is_plain(parts: list[Part], *others: str) -> bool:
    """Return whether the parts are DPO with the reverse KL, and perhaps others that a setting leaves alone."""
    names = {part["name"].value for part in parts}
    return "dpo" in names and names <= {"dpo", *others} and not any("f_divergence" in part for part in parts)


def _become(asked: Asked, parts: list[Part], name: str, setting: str, more: Part) -> None:
    """Make the DPO among the parts another objective, by a setting of TRL's."""
    for part in parts:
        if part["name"].value == "dpo":
            part["name"] = Setting(value=name, source=f"{part['name'].source}, {asked.key(setting)}")
            weight = {"weight": part.pop("weight")} if "weight" in part else {}
            part |= {**more, **weight}


def _desensitise(asked: Asked, parts: list[Part]) -> None:
    alpha = asked.take("ld_alpha")
    if alpha == 1:
        asked.leave("ld_alpha", "1 lets every token count alike")
    elif alpha is not None and _is_plain(parts, "sft"):
        _become(asked, parts, "ld_dpo", "ld_alpha", {"alpha": asked.setting("ld_alpha", None)})
    elif alpha is not None:
        text = f"{alpha}: it weighs tokens of every loss there; here only of DPO with the reverse KL, objective ld_dpo"
        asked.decide("ld_alpha", text)


def _weigh(asked: Asked, parts: list[Part]) -> None:
    if asked.take("use_weighting") is not True:
        asked.leave("use_weighting", "nothing was asked for")
    elif _is_plain(parts):
        bounded = Setting(value=False, note="TRL 1.16 does not bound the weights at 1, as the authors do")
        _become(asked, parts, "wpo", "use_weighting", {"bounded": bounded})
    else:
        text = "True: it weighs pairs in every loss there; here only in DPO with the reverse KL, objective wpo"
        asked.decide("use_weighting", text)


def _leave_unread(asked: Asked, kinds: list[str]) -> None:
    names = ", ".join(kinds)
    if not any(LOSSES[kind].strength for kind in kinds):
        asked.leave("beta", f"{names} does not read it")
    if "discopop" not in kinds:
        asked.leave("discopop_tau", "belongs to loss_type: discopop")
    if not any(LOSSES[kind].smooths for kind in kinds):
        reason = f"TRL 1.16 ignores it for {names}; label_smoothing of an objective here would not be ignored"
        asked.leave("label_smoothing", reason if asked.take("label_smoothing") else "nothing was asked for")
    if not asked.take("rpo_alpha"):
        asked.leave("rpo_alpha", "nothing was asked for")
