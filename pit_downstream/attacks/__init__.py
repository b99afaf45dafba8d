"""Attacks on classifiers and detectors, in the pixel scale [0, 1].

Importing this fills `core.registry.ATTACKS`; `ATTACKS.entry(name).about['source']` says where each comes from.

    autoattack(model, images, labels, norm='Linf', epsilon=8/255)            any callable to logits, tensors in and out
    build_attack(Spec.parse('pgd(epsilon=8/255)'))(predictor, batch, rng)    any registered attack (attacks.base)

base has what every attack guarantees, threat the balls, search the engine of the iterative ones, objective and losses
what they climb, checks what betrays a wrong evaluation. Attacks on detectors alone are in `det`.
"""

from pit_downstream.attacks import (  # noqa: F401  registers the attacks
    apgd,
    carlini_wagner,
    fab,
    gradient,
    noise_baseline,
    occlusion,
    patch,
    square,
    transfer,
)
from pit_downstream.attacks.ensemble import autoattack

__all__ = ['autoattack']
