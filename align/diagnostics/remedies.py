"""Remedies for entanglement that change how hard each side of a pair is pulled: weights move into the band.

Both lay an identity between the log-probabilities and the objective, whose backward multiplies the chosen side's
gradient by ``alpha`` and the rejected side's by ``1 / alpha``. With ``alpha^2 = r* / r`` the ratio of weights becomes
``r* = s_l / s_w``, the centre of the band: the step of the pair alone is ``c (g_w / s_w - g_l / s_l)`` with
``c = sqrt(d_w d_l s_w s_l)``, which to first order changes the chosen log-probability by ``c s_w (1 - cosine) >= 0``
and the rejected one by ``-c s_l (1 - cosine) <= 0`` (Yuan et al., arXiv:2410.13828, section 5.1; that the geometric
mean of the two pulls is kept is ours). All of it is of a pair that the objective pulls apart: both weights positive.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.diagnostics.cotangents import constant_sides
from align.diagnostics.measure import Rows
from align.diagnostics.norms import NormProbe
from align.objectives.logps import PairTokenLogps
from align.recipe.disentangle import Calibrate, Normalise

STATE_FILE = "disentangle.json"
"""What a checkpoint keeps of moving averages."""
NOT_SUMMED = (
    "disentangle: {name} moves the weights of whole log-probabilities, and this objective weighs single tokens; use an "
    "objective that reads the two sums, or disentangle: sparse"
)


class _Scaled(torch.autograd.Function):
    """An identity whose backward multiplies each row's gradient by a factor that is set before it runs."""

    @staticmethod
    def forward(ctx: Any, logp: Tensor, factors: list[Tensor]) -> Tensor:
        ctx.factors = factors
        return logp.view_as(logp)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.factors
        return slopes[0] * factor[:, None].to(slopes[0].dtype), None


class Reweighting(ABC):
    """Abstract: a remedy that multiplies the pulls of both sides; one object for a whole training.

    Args:
        probe: measures norms.
        mean: brings a vector of shape (n,) to its mean over all processes.
    """

    name: str

    def __init__(self, probe: NormProbe, mean: Callable[[Tensor], Tensor]) -> None:
        self.probe, self.mean = probe, mean
        self._scaled: PairTokenLogps | None = None
        self._factors: tuple[list[Tensor], list[Tensor]] = ([], [])

    @abstractmethod
    def watching(self, rows: Rows, step: int, counts: Bool[Tensor, " pairs"]) -> AbstractContextManager[None]:
        """Watch the forward that computes the policy's log-probabilities of a batch.

        Args:
            rows: of the batch.
            step: optimiser step, from 0.
            counts: pairs that the loss counts; others only fill a batch up.
        """

    def metrics(self) -> dict[str, Tensor]:
        """Return what is logged of each pair beside alpha."""
        return {}

    @abstractmethod
    def alpha(self, policy: PairTokenLogps, d_w: Tensor, d_l: Tensor) -> Float[Tensor, " pairs"]:
        """Return what to multiply the chosen pull with, and the rejected one to divide by.

        Args:
            policy: log-probabilities, in the graph.
            d_w: the objective's weight on each chosen log-probability.
            d_l: its weight on each rejected one.
        """

    def scaled(self, policy: PairTokenLogps) -> PairTokenLogps:
        """Return the log-probabilities for the objective to read."""
        self._factors = ([], [])
        self._policy = policy
        chosen, rejected = (
            _Scaled.apply(side.logp, factors)  # type: ignore[no-untyped-call]
            for side, factors in zip((policy.chosen, policy.rejected), self._factors, strict=True)
        )
        self._scaled = replace(
            policy, chosen=replace(policy.chosen, logp=chosen), rejected=replace(policy.rejected, logp=rejected)
        )
        return self._scaled

    def settle(self, losses: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Fix the factors for the backward of the losses, and return alpha of each pair.

        Raises:
            ValueError: if the objective weighs single tokens.
        """
        assert self._scaled is not None
        sides = (self._scaled.chosen, self._scaled.rejected)
        slopes = torch.autograd.grad(losses.sum(), [side.logp for side in sides], retain_graph=True, allow_unused=True)
        if any(slope is None for slope in slopes):
            raise ValueError(f"disentangle: {self.name} needs an objective that reads both sides of a pair")
        masks = [side.mask for side in sides]
        if not bool(constant_sides(slopes, masks).all()):
            raise ValueError(NOT_SUMMED.format(name=self.name))
        d_w, d_l = (
            sign * (s.masked_fill(~m, 0.0).double().sum(-1) / m.sum(-1))
            for sign, s, m in zip((-1, 1), slopes, masks, strict=True)
        )
        found = self.alpha(self._policy, d_w, d_l)
        for factors, value in zip(self._factors, (found, 1 / found), strict=True):
            factors.append(value)
        return found

    def release(self) -> None:
        """Take everything off the model, after a batch's backward."""
        self.probe.release()

    def save(self, folder: Path) -> None:  # noqa: B027
        """Keep in a checkpoint what has to be continued; by default nothing."""

    def load(self, folder: Path) -> None:  # noqa: B027
        """Take from a checkpoint what was kept."""


class Normalised(Reweighting):
    """Pairwise-normalised descent: alpha of each pair by its own norms, in the step itself."""

    name = "normalise"

    def __init__(self, settings: Normalise, probe: NormProbe, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__(probe, mean)
        self.limit = settings.limit

    def watching(self, rows: Rows, step: int, counts: Bool[Tensor, " pairs"]) -> AbstractContextManager[None]:
        """Watch every forward."""
        return self.probe.forward(rows)

    def alpha(self, policy: PairTokenLogps, d_w: Tensor, d_l: Tensor) -> Float[Tensor, " pairs"]:
        """Return ``sqrt(r* / r)``; 1 where the two weights have not one sign, and there is no band."""
        products = self.probe.products(policy)
        norm_ratio = (products[:, 1, 1] / products[:, 0, 0]).sqrt()
        found = (norm_ratio * d_l / d_w).sqrt()
        usable = (d_w * d_l > 0) & found.isfinite() & (found > 0)
        kept = found.where(usable, 1.0).clamp(1 / self.limit, self.limit)
        self._promised = usable & (d_w > 0) & (kept == found)
        return kept

    def metrics(self) -> dict[str, Tensor]:
        """Return which pairs the promise is about: pulled apart by the objective, and within the limit."""
        return {"promised": self._promised.double()}


class Calibrated(Reweighting):
    """Reward calibration: one alpha for all pairs, by moving averages of log norms and log weights.

    ``log alpha = (log r*_EMA - log r_EMA) / 2`` (arXiv:2604.18239).
    """

    name = "calibrate"

    def __init__(self, settings: Calibrate, probe: NormProbe, mean: Callable[[Tensor], Tensor]) -> None:
        super().__init__(probe, mean)
        self.settings = settings
        self.averages: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self._step = -1
        self._watched = False

    def watching(self, rows: Rows, step: int, counts: Bool[Tensor, " pairs"]) -> AbstractContextManager[None]:
        """Watch the forwards of measured steps, and the first; what the step before has summed up is taken in."""
        if step != self._step:
            self.averages, self._sums, self._step = self._moved(), {}, step
        self._counts = counts
        self._watched = step % self.settings.every == 0 or not self.averages
        if not self._watched:
            return nullcontext()
        if self.settings.norms == "head":
            rows = replace(rows, groups=rows.groups.T.reshape(1, -1))  # all chosen, then all rejected: means of both
        return self.probe.forward(rows)

    def alpha(self, policy: PairTokenLogps, d_w: Tensor, d_l: Tensor) -> Float[Tensor, " pairs"]:
        """Return the same factor for every pair, by the averages as they were before the step.

        So that it does not depend on how a step is cut into batches. In the first step, which has none, it is 1.
        """
        counts = self._counts
        measured = {"pairs": counts.sum(), "d_w": d_w[counts].sum(), "d_l": d_l[counts].sum()}
        if self._watched:
            measured |= self._norms(self.probe.products(policy), len(d_w))
        means = self.mean(torch.stack([value.double() for value in measured.values()])).tolist()
        for name, value in zip(measured, means, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value
        if not {"d_w", "d_l", "s_w", "s_l"} <= self.averages.keys():
            return torch.ones_like(d_w)
        own = self.averages
        log_alpha = ((own["s_l"] - own["s_w"]) - (own["d_w"] - own["d_l"])) / 2
        limit = self.settings.limit
        return torch.full_like(d_w, log_alpha).exp().clamp(1 / limit, limit)

    def _norms(self, products: Tensor, pairs: int) -> dict[str, Tensor]:
        """Return both norms, summed over the pairs that count."""
        counts = self._counts
        if self.settings.norms == "all":
            norms = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()[counts].sum(0)
            return {"s_w": norms[0], "s_l": norms[1]}
        sides = products[0][:pairs, :pairs], products[0][pairs:, pairs:]
        some = [side[counts][:, counts].mean().nan_to_num().clamp(min=0).sqrt() * counts.sum() for side in sides]
        return {"s_w": some[0], "s_l": some[1]}

    def _moved(self) -> dict[str, float]:
        """Return the averages, with the means of the step at hand taken in."""
        found, pairs = dict(self.averages), self._sums.get("pairs", 0.0)
        for name, total in self._sums.items():
            if name != "pairs" and pairs > 0 and total > 0:
                log, keep = math.log(total / pairs), self.settings.ema
                found[name] = keep * found[name] + (1 - keep) * log if name in found else log
        return found

    def save(self, folder: Path) -> None:
        """Keep the averages."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE_FILE).write_text(json.dumps(self._moved()) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Take the averages.

        Raises:
            ValueError: if the checkpoint has none: the run it is of was not calibrated.
        """
        file = folder / STATE_FILE
        if not file.is_file():
            raise ValueError(f"{folder} holds no {STATE_FILE}: the run it is of was not calibrated")
        self._sums = {}
        self.averages = {name: float(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
