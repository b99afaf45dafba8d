"""Flags that select attacks."""

import argparse
import sys
from collections.abc import Sequence

from pit_downstream.cli.classifiers import classifier_parser, pictures, predictor_of, preprocessing, require_classes
from pit_downstream.cli.detectors import detector, measured_detector_parser
from pit_downstream.cli.plugins import import_plugin, add_cwd_to_path
from pit_downstream.cli.errors import require_folder
from pit_downstream.cli.argument_types import parse_number
from pit_downstream.utils.errors import InputError


def attack_parser(description: str) -> argparse.ArgumentParser:
    """Build the parser for attacks on a classifier or, with --config, on a detector."""
    if '--config' not in sys.argv[1:]:
        parser = classifier_parser(description)
        parser.add_argument('--config', dest='detector', action='store_false', default=False, help='--config CONFIG '
                            'CHECKPOINT attacks a detector of mmdet; see --config --help')
        add_attack_flags(parser)
        return parser
    parser = measured_detector_parser(description)
    add_attack_flags(parser)
    add = parser.add_argument
    add('--config', dest='detector', action='store_true', help='CONFIG and CHECKPOINT name a detector')
    add('--at', choices=['network', 'original'], default='network', help='the size of image that is perturbed '
        '(default: %(default)s)')
    parser.set_defaults(attacks=['noise', 'pgd(steps=10)'])
    return parser


def add_attack_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add('--attacks', nargs='*', default=['noise', 'fgsm', 'pgd(steps=20)', 'autoattack'], metavar='ATTACK',
        help="names with arguments: 'pgd(steps=20, restarts=5)'; an attack with an explicit norm or epsilon keeps it "
        '(default: %(default)s)')
    add('--norm', default='Linf', help='Linf, L2 or L1 (default: %(default)s)')
    add('--epsilons', nargs='+', metavar='N/255', help='sizes on the scale of pixels in [0, 1] (default for Linf: '
        '1/255 2/255 4/255 8/255)')
    add('--source', metavar='MODEL', help="make the images on this model and show them to --model: transfer; with "
        "other weights: \"pit_s(weights='FILE')\"")
    add('--corruptions', nargs='+', default=[], metavar='CORRUPTION', help="also attack images under these: "
        "'fog(severity=3)' 'occlusion(share=0.5)'; without --attacks the corruptions alone are measured")
    add('--import', dest='imports', nargs='+', default=[], metavar='MODULE', help='modules that register attacks or '
        'custom corruptions')
    add('--save', metavar='DIR', help='keep every attacked image, and the one before the attack, as '
        'DIR/CONDITION/ID.npy (NumPy, float32, 3 x H x W in [0, 1], exactly what the model saw), and a sheet '
        'DIR/CONDITION.png')


def attack_conditions(args: argparse.Namespace) -> tuple:
    """Return the conditions that the flags select. Raises InputError for invalid ones."""
    from pit_downstream.benchmarks import adversarial
    from pit_downstream.utils.spec import Spec
    for module in args.imports:
        import_plugin(module)
    if args.detector:
        from pit_downstream import det  # noqa: F401  registers the attacks on detectors
    from pit_downstream.evaluation.attacking import check_attack
    from pit_downstream.evaluation.corrupting import check_corruption
    if args.epsilons is None and args.norm != 'Linf':
        raise InputError(f'expected --epsilons with --norm {args.norm}, got none; write --epsilons 0.5')
    epsilons = adversarial.EPSILONS if args.epsilons is None else [parse_number(text) for text in args.epsilons]
    if args.detector and args.source:
        raise InputError('expected --source with a classifier, got it with a detector; leave it out')
    if not args.detector:
        require_folder(args.data, '--data')  # before weights of a source are downloaded
    args.predictors = None if args.detector else _sources(args)
    attacks = [_named(_attack(text, args.source), args.predictors) for text in args.attacks]
    args.sources = {attack.get('source') for attack in attacks if attack.name == 'transfer'}
    every = adversarial.list_conditions(attacks, epsilons, norms=[args.norm],
                                        corruptions=[None, *map(Spec.parse, args.corruptions)])
    for condition in every:
        check_corruption(condition.corruption)
        check_attack(condition.attack, args.predictors)
    return every


def shown_conditions(texts: Sequence[str]) -> list:
    """Parse 'clean', and corruptions or attacks with their arguments.

    Raises InputError for one that does not exist.
    """
    from pit_downstream import corruptions, det  # noqa: F401  register corruptions and attacks
    from pit_downstream.results.condition import CLEAN, Condition
    from pit_downstream.utils.registry import CORRUPTIONS
    from pit_downstream.utils.spec import Spec
    from pit_downstream.evaluation.attacking import check_attack
    from pit_downstream.evaluation.corrupting import check_corruption
    found = []
    for spec in map(Spec.parse, texts):
        corrupts = spec.name in CORRUPTIONS
        (check_corruption if corrupts else check_attack)(None if spec.name == 'clean' else spec)
        found.append(CLEAN if spec.name == 'clean' else Condition(spec) if corrupts else Condition(None, spec))
    return found


def _attack(text: str, source: str | None):
    """Return the attack with its default arguments, as a transfer if `source` is given and the attack uses a model."""
    from pit_downstream.utils.registry import ATTACKS
    from pit_downstream.utils.spec import Spec
    spec = Spec.parse(text)
    kind = ATTACKS[spec.name]
    usual = {'norm': 'patch'} if kind.norms == ('patch',) else getattr(kind, 'usual', {})
    spec = Spec.of(spec.name, **{**usual, **dict(spec.kwargs)})
    if source is None or spec.name in ('noise', 'transfer'):
        return spec
    return Spec.of('transfer', **{**dict(spec.kwargs), 'attack': spec.name, 'source': source})


def _named(spec, predictors):
    """Return a transfer with the key of its source, which identifies the weights: records must not mix two."""
    from pit_downstream.results.records import model_key
    source = spec.get('source')
    if predictors is None or spec.name != 'transfer' or not isinstance(source, str):
        return spec
    return type(spec).of(spec.name, **{**dict(spec.kwargs), 'source': model_key(predictors(source).name)})


def _sources(args: argparse.Namespace):
    """Return the factory of models that an attack is made on."""
    from pit_downstream.evaluation.models import classifiers
    from pit_downstream.evaluation.distributed import init_distributed
    add_cwd_to_path()
    return classifiers(preprocess=args.preprocess, img_size=args.img_size, device=init_distributed(args.device),
                       seed=args.seed)


def attacked_classifier(args: argparse.Namespace):
    """Build the classifier as in `classifier`. --amp applies only to the search of attacks; results are in float32."""
    if args.amp == 'fp16':
        raise InputError('expected --amp bf16 for attacks, got fp16, which loses small gradients; results are in '
                         'float32 anyway')
    return predictor_of(args, search=args.amp)


def attacked_preprocessing(args: argparse.Namespace, predictor) -> list[str]:
    """Return a line on the preprocessing of an attacked classifier, and one on each source of transferred images.

    A source gets the images of the attacked classifier and normalizes them itself.
    """
    if args.detector:
        return []
    sources = [args.predictors(source) for source in sorted(args.sources)]
    return [preprocessing(predictor), *(f'source {source.name}: the same images, {source.preparation.normalization}'
                                        for source in sources)]


def attacked(args: argparse.Namespace) -> tuple:
    """Return the measuring function, predictor and samples that the flags select, of a classifier or a detector."""
    from functools import partial
    if not args.detector:
        from pit_downstream.evaluation.robustness import keep_robustness
        predictor = attacked_classifier(args)
        samples = pictures(args, predictor)
        for source in sorted(args.sources):
            require_classes(samples, args.predictors(source))
            names = args.predictors(source).class_names
            if names and predictor.class_names and names != predictor.class_names:
                raise InputError(f'the classes of --source differ from those of --model: {", ".join(names[:4])} and '
                                 f'{", ".join(predictor.class_names[:4])}. Use a source of the same classes and order.')
        return keep_robustness, predictor, samples
    predictor, samples, cfg = detector(args)
    from pit_downstream.det import robustness
    from pit_downstream.det.metric import config_metrics
    from pit_downstream.det.full_resolution import OriginalSizePredictor
    seen = OriginalSizePredictor(predictor) if args.at == 'original' else predictor
    return partial(robustness.keep_robustness, metrics=config_metrics(cfg, samples)), seen, samples
