"""The negative log-likelihood of the chosen, which many objectives add: three ways to count its tokens."""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from align.objectives.logps import SequenceLogps
from align.objectives.settings import check_choice

Nll = Literal["sum", "mean", "batch_mean"]


def negative_log_likelihood(rows: SequenceLogps, nll: Nll) -> Float[Tensor, " sequences"]:
    """Return the negative log-likelihood of each sequence.

    Args:
        rows: of the chosen side.
        nll: ``sum`` over its tokens; ``mean`` over them; or ``batch_mean``: divided by the mean length of the batch's
            chosen completions, so that its mean over the rows of a forward is one over their tokens (what TRL trains).
    """
    if nll == "sum":
        return -rows.logps
    return -rows.mean_logps if nll == "mean" else -rows.logps / rows.lengths.to(rows.logps.dtype).mean()


def check_nll(nll: str) -> None:
    """Refuse an unknown way to count tokens.

    Raises:
        ValueError: naming those there are.
    """
    check_choice("nll", nll, get_args(Nll))
