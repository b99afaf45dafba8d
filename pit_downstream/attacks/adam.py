"""Per-row Adam with a separate step count per row (Kingma & Ba 2015, arXiv 1412.6980, constants of algorithm 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pit_downstream.attacks.search_state import TensorRows

BETAS, TINY = (.9, .999), 1e-8


@dataclass(kw_only=True)
class AdamState(TensorRows):
    """Running means of the gradients and of their squares, each (n, ...)."""

    mean: Tensor
    square: Tensor

    @classmethod
    def zeros_like(cls, images: Tensor) -> 'AdamState':
        """Return the initial state of rows (n, ...)."""
        return cls(mean=torch.zeros_like(images), square=torch.zeros_like(images))

    def step(self, gradient: Tensor, age: Tensor) -> Tensor:
        """Return the update (n, ...) for learning rate 1. age: (n,), previous updates of each row."""
        count = (age + 1).to(gradient.device, gradient.dtype).view(-1, *[1] * (gradient.ndim - 1))
        self.mean = self.mean.lerp(gradient, 1 - BETAS[0])
        self.square = BETAS[1] * self.square + (1 - BETAS[1]) * gradient.square()
        return self.mean / (1 - BETAS[0] ** count) / ((self.square / (1 - BETAS[1] ** count)).sqrt() + TINY)
