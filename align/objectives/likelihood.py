"""Likelihood of tokens: fine-tuning on the chosen, and unlikelihood of the rejected."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.anchors import Nll, check_nll, negative_log_likelihood
from align.objectives.base import SidedObjective, TokenObjective
from align.objectives.cards import Card, Limit
from align.objectives.logps import PairTokenLogps, SequenceLogps
from align.objectives.numerics import log1mexp
from align.objectives.registry import OBJECTIVES
from align.objectives.settings import check_not_negative

SFT_CARD = Card(
    title="Supervised fine-tuning on the chosen",
    loss="-a/k",
    d_w="1/k",
    d_l="0",
    source="negative log-likelihood, as in Ouyang et al., 2022, arXiv:2203.02155",
    checked="TRL 1.16",
    departs="A mean over each completion's tokens, so that pairs count alike; TRL's sft is a mean over the tokens of "
    "the batch (nll: batch_mean).",
    does="Pulls the chosen up at a constant weight and does not look at the rejected, which rises along where the two "
    "are alike. In a mixture it keeps the chosen from falling.",
    examples=({"nll": "sum"}, {"nll": "batch_mean"}),
)


@OBJECTIVES.register("sft", SFT_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class SFT(SidedObjective):
    """The chosen's negative log-likelihood.

    Attributes:
        nll: how its tokens count: mean; sum; or batch_mean, over the batch's tokens, as TRL.
    """

    needs_reference = False
    reads = ("chosen",)
    nll: Nll = "mean"

    def __post_init__(self) -> None:
        check_nll(self.nll)

    @property
    def needs_lengths(self) -> bool:  # type: ignore[override]
        """Whether the likelihood is a mean."""
        return self.nll != "sum"

    @property
    def couples_pairs(self) -> bool:  # type: ignore[override]
        """Whether lengths of other pairs count."""
        return self.nll == "batch_mean"

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return the log-likelihood, as ``nll`` counts."""
        return -negative_log_likelihood(rows, self.nll)

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the negative log-likelihood."""
        return -score


UNLIKELIHOOD = Card(
    title="Unlikelihood of the rejected's tokens",
    loss="-a - lam*n_l*log1mexp(logp_l)",
    d_w="1",
    d_l="lam*exp(logp_l)/(1 - exp(logp_l))",
    source="Welleck et al., 2019, arXiv:1908.04319, with the rejected's tokens as negative candidates",
    checked="derived",
    departs="The paper's candidates are repeated tokens; every token of a rejected completion is one here.",
    does="Pushes each rejected token down the harder the likelier it is, p/(1-p) times: shared tokens that the chosen "
    "needs are pushed too, against the likelihood term.",
    diverges="log(1 - p) where a token's probability is 1: the tangent at log p = -1e-8.",
    limits=(Limit(says="is sft with nll = sum at lam = 0", at={"lam": 0.0}, of="sft", settings={"nll": "sum"}),),
    examples=({"lam": 0.3},),
    per_token=True,
)


@OBJECTIVES.register("unlikelihood", UNLIKELIHOOD)
@dataclass(frozen=True, slots=True, kw_only=True)
class Unlikelihood(TokenObjective):
    """The chosen's likelihood, and the unlikelihood of each rejected token.

    Attributes:
        lam: weight of the unlikelihood, at least 0.
    """

    needs_reference = False
    lam: float = 1.0

    def __post_init__(self) -> None:
        check_not_negative(lam=self.lam)

    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the summed losses of both sides' tokens."""
        rejected = policy.rejected
        unlikely = log1mexp(rejected.logp.masked_fill(~rejected.mask, -1.0)).masked_fill(~rejected.mask, 0.0).sum(-1)
        return -policy.chosen.summed().logps - self.lam * unlikely
