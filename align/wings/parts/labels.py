"""Label spaces that are larger than the question: joint with a transform, or over several centres."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class JointLabels:
    """Labels of a class and of which of M transforms a picture went through: ``class * M + transform``.

    Attributes:
        classes: how many.
        transforms: how many, M.
    """

    classes: int
    transforms: int

    @property
    def size(self) -> int:
        """How many joint labels there are."""
        return self.classes * self.transforms

    def encode(self, labels: Tensor, transform: Tensor | int) -> Tensor:
        """Return the joint labels of classes and transforms."""
        return labels * self.transforms + transform

    def aggregate(self, logits: Tensor) -> Tensor:
        """Return class logits: of each transformed picture only the logits of its own transform, averaged.

        Args:
            logits: of shape (n, M, classes * M), the m-th of the picture under transform m.
        """
        n = len(logits)
        by_transform = logits.view(n, self.transforms, self.classes, self.transforms)
        own = torch.diagonal(by_transform, dim1=1, dim2=3)  # (n, classes, M)
        return own.mean(-1)
