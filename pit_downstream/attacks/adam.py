"""Per-row Adam with a separate step count per row (Kingma & Ba 2015, arXiv 1412.6980, constants of algorithm 1)."""

import torch
from torch import Tensor

BETAS, TINY = (.9, .999), 1e-8


def init_adam(images: Tensor) -> dict[str, Tensor]:
    """Return the initial Adam state of rows (n, ...)."""
    return {'mean': torch.zeros_like(images), 'square': torch.zeros_like(images)}


def step_adam(memory: dict[str, Tensor], gradient: Tensor, age: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the update (n, ...) for learning rate 1 and the new state. age: (n,) previous updates of each row."""
    count = (age + 1).to(gradient.device, gradient.dtype).view(-1, *[1] * (gradient.ndim - 1))
    mean = memory['mean'].lerp(gradient, 1 - BETAS[0])
    square = BETAS[1] * memory['square'] + (1 - BETAS[1]) * gradient.square()
    move = mean / (1 - BETAS[0] ** count) / ((square / (1 - BETAS[1] ** count)).sqrt() + TINY)
    return move, {'mean': mean, 'square': square}
