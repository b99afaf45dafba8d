"""Attacks on classifiers and detectors, in the pixel scale [0, 1].

Importing this package fills `utils.registry.ATTACKS`. `ATTACKS.get_entry(name).metadata['source']` cites the source.

    autoattack(model, images, labels, norm='Linf', epsilon=8/255)            any callable that returns logits
    build_attack(Spec.parse('pgd(epsilon=8/255)'))(predictor, batch, rng)    any registered attack (attacks.base)

Modules: base (guarantees of every attack), threat_model (epsilon balls), search_engine (iterative attacks), objective
and losses (maximized quantities), sanity_checks (signs of a flawed evaluation). The attacks of tog, dag and dpatch are
for detectors.
"""

from pit_downstream.attacks import (  # noqa: F401  registers the attacks
    apgd,
    carlini_wagner,
    dag,
    dpatch,
    fab,
    gradient,
    noise_baseline,
    patch,
    square,
    tog,
    transfer,
)
from pit_downstream.attacks import salient_occlusion as occlusion  # noqa: F401  registers the attacks
from pit_downstream.attacks.ensemble import autoattack

__all__ = ['autoattack']
