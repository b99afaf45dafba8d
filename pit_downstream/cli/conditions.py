"""Corruptions and attacks that the flags select."""

import argparse
from collections.abc import Sequence
from fractions import Fraction

from pit_downstream.benchmarks import adversarial, coco_c, imagenet_c
from pit_downstream.cli.argument_types import parse_epsilon
from pit_downstream.cli.models import preprocess_options
from pit_downstream.cli.plugins import add_cwd_to_path, import_plugins
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.imports import pause_garbage_collection
from pit_downstream.utils.registry import ATTACKS, CORRUPTIONS
from pit_downstream.utils.spec import Spec


def choose_corruptions(args: argparse.Namespace, *, registered: bool = True) -> list[str]:
    """Return the names that --corruptions selects. Raises InputError for an unknown one if `registered`."""
    import_plugins(args.imports)
    wrong = [severity for severity in args.severities if severity not in imagenet_c.SEVERITIES]
    if wrong:
        raise InputError(f'severity must be in 1..5, got {wrong[0]}. Clean images are measured without a severity.')
    groups = {'benchmark': imagenet_c.CORRUPTIONS, 'extra': imagenet_c.HOLD_OUT,
              'all': imagenet_c.CORRUPTIONS + imagenet_c.HOLD_OUT}
    names = list(dict.fromkeys(name for given in args.corruptions for name in groups.get(given, (given,))))
    if registered:
        with pause_garbage_collection():
            from pit_downstream import corruptions  # noqa: F401  registers them
        for name in names:
            CORRUPTIONS.get_entry(name)
    return names


def choose_detection_conditions(args: argparse.Namespace) -> tuple[list[str], dict, tuple[Condition, ...]]:
    """Return the selected corruptions (empty for 'none'), their arguments besides severity, and all conditions."""
    names = [] if args.corruptions == ['none'] else choose_corruptions(args)
    variant = {'order': 'bgr'} if args.bgr else {}
    return names, variant, coco_c.list_conditions(names, args.severities, **variant)


def choose_attacks(args: argparse.Namespace, attacks: Sequence[str], *, predictors=None) -> tuple[Condition, ...]:
    """Return the conditions of --attacks, --epsilons, --norm and --corruptions. Raises InputError for invalid ones.

    Args:
        attacks: Names with arguments.
        predictors: Builds the models of --source and of transfer attacks. None for a detector.
    """
    from pit_downstream.evaluation.attacking import check_attack
    from pit_downstream.evaluation.corrupting import check_corruption
    if args.epsilons is None and args.norm != 'Linf':
        raise InputError(f'--norm {args.norm} has no default sizes. Pass --epsilons, such as --epsilons 0.5.')
    epsilons: Sequence[int | float | Fraction] = adversarial.EPSILONS if args.epsilons is None else [
        parse_epsilon(text) for text in args.epsilons]
    specs = [_name_source(_parse_attack(text, args.source), predictors) for text in attacks]
    conditions = adversarial.list_conditions(specs, epsilons, norms=[args.norm],
                                             corruptions=[None, *map(Spec.parse, args.corruptions)])
    for condition in conditions:
        check_corruption(condition.corruption)
        check_attack(condition.attack, predictors)
    return conditions


def _parse_attack(text: str, source: str | None) -> Spec:
    """Return an attack with its default arguments, as a transfer if `source` is given and the attack uses a model."""
    spec = Spec.parse(text)
    attack = ATTACKS[spec.name]
    usual = {'norm': 'patch'} if attack.norms == ('patch',) else getattr(attack, 'usual', {})
    spec = Spec.of(spec.name, **{**usual, **dict(spec.kwargs)})
    if source is None or spec.name in ('noise', 'transfer'):
        return spec
    return Spec.of('transfer', **{**dict(spec.kwargs), 'attack': spec.name, 'source': source})


def _name_source(spec: Spec, predictors) -> Spec:
    """Return a transfer with the key of its source, which identifies the weights: records must not mix two."""
    from pit_downstream.results.records import get_model_key
    source = spec.get('source')
    if predictors is None or spec.name != 'transfer' or not isinstance(source, str):
        return spec
    return Spec.of(spec.name, **{**dict(spec.kwargs), 'source': get_model_key(predictors(source).name)})


def make_sources(args: argparse.Namespace):
    """Return the function that builds a classifier on which attacks are made, by its name."""
    with pause_garbage_collection():
        from pit_downstream.evaluation.distributed import init_distributed
        from pit_downstream.evaluation.models import classifiers
    add_cwd_to_path()
    options = {key: value for key, value in preprocess_options(args).items() if key in ('preprocess', 'img_size')}
    return classifiers(**options, device=init_distributed(args.device), seed=args.seed)


def choose_shown_conditions(args: argparse.Namespace) -> list[Condition]:
    """Return the clean condition, and those of --corruptions and --attacks, which have all their arguments."""
    from pit_downstream import corruptions, det  # noqa: F401  register corruptions and attacks
    from pit_downstream.evaluation.attacking import check_attack
    from pit_downstream.evaluation.corrupting import check_corruption
    conditions = [CLEAN, *(Condition(Spec.parse(text)) for text in args.corruptions),
                  *(Condition(None, Spec.parse(text)) for text in args.attacks)]
    for condition in conditions:
        check_corruption(condition.corruption)
        check_attack(condition.attack)
    return conditions
