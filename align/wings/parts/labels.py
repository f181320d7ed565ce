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

    def by_transform(self, logits: Tensor) -> Tensor:
        """Return class logits: of each transformed picture the logits of its own transform, of shape (n, M, classes).

        Args:
            logits: of shape (n, M, classes * M), the m-th of the picture under transform m.
        """
        by_transform = logits.view(len(logits), self.transforms, self.classes, self.transforms)
        return torch.diagonal(by_transform, dim1=1, dim2=3).transpose(1, 2)

    def aggregate(self, logits: Tensor) -> Tensor:
        """Return :meth:`by_transform`'s mean over the transforms, of shape (n, classes)."""
        return self.by_transform(logits).mean(1)
