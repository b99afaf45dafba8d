"""Evaluate a classifier or a detector under adversarial attacks: print its accuracy or AP by attack and epsilon.

pit-downstream eval-adversarial --model pit_s --limit 1000 --attacks fgsm 'pgd(steps=20)' autoattack
pit-downstream eval-adversarial --model pit_s --attacks 'pgd(steps=20)' --norm L2 --epsilons 0.5 1 2 --save-images DIR
pit-downstream eval-adversarial --model pit_s --attacks mim --source resnet50 --epsilons 16/255
torchrun --nproc-per-node 8 --no-python pit-downstream eval-adversarial --model pit_s --epsilons 4/255 --precision bf16
pit-downstream eval-adversarial --model retinanet_pit_ti --weights work_dirs/retinanet_pit_ti --bundled \\
    --attacks noise "pgd(steps=10, loss='cls')" "tog(mode='vanishing')" dag
An interrupted run resumes from its records. --precision applies to the search. Results are computed in float32.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pit_downstream.cli import conditions, flags, models
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import import_plugins
from pit_downstream.utils.errors import InputError

ATTACKS = {'classifier': ['noise', 'fgsm', 'pgd(steps=20)', 'autoattack'], 'detector': ['noise', 'pgd(steps=10)']}
CLASSIFIER_FLAGS = ('--labels', '--classes', '--cache', '--preprocess', '--img-size', '--mean', '--std', '--source',
                    '--save-images', '--precision', '--compile')
DETECTOR_FLAGS = ('--cfg-options', '--images', '--resolution')


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'classifier', 'detector')
    flags.add_data_flags(parser, 'classifier', 'detector')
    flags.add_preprocess_flags(parser)
    parser.groups['preprocessing'].add_argument(
        '--resolution', choices=['network', 'original'], default='network', help='attack the input of a detector '
        '(network) or the image before its resize (original) (default: %(default)s)')
    add = parser.groups['conditions'].add_argument
    add('--attacks', nargs='*', metavar='ATTACK', help="names with arguments: 'pgd(steps=20, restarts=5)'; an attack "
        f'with an explicit norm or epsilon keeps it (default: {" ".join(ATTACKS["classifier"])}; of a detector '
        f'{" ".join(ATTACKS["detector"])})')
    add('--norm', default='Linf', help='Linf, L2 or L1 (default: %(default)s)')
    add('--epsilons', nargs='+', metavar='N/255', help='perturbation sizes for pixels in [0, 1] (default for '
        'Linf: 1/255 2/255 4/255 8/255)')
    add('--source', metavar='MODEL', help='transfer attack: compute the adversarial images on this classifier, '
        "such as resnet50 or \"pit_s(weights='FILE')\" (default: --model)")
    add('--corruptions', nargs='+', default=[], metavar='CORRUPTION', help="also attack images under these "
        "corruptions, such as 'fog(severity=3)'; an empty --attacks evaluates only these (default: none)")
    flags.add_result_flags(parser)
    parser.groups['output'].add_argument(
        '--save-images', metavar='DIR', help='folder for every attacked and clean image, '
        'DIR/CONDITION/ID.npy (the input of the model, float32, 3 x H x W in [0, 1]), and a sheet DIR/CONDITION.png '
        '(default: none)')
    flags.add_run_flags(parser, 'classifier', 'detector')
    flags.add_import_flag(parser, 'attacks or custom corruptions')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        import_plugins(args.imports)
        choice = models.choose_model(args.model, args.weights, 'classifier', 'detector')
        other, flags_of_other = ('detector', DETECTOR_FLAGS) if choice.task == 'classifier' else (
            'classifier', CLASSIFIER_FLAGS)
        flags.reject_flags(parser, args, flags_of_other, f'applies to a {other}, got a {choice.task}: {choice.name}')
        measure, predictor, samples, wanted, lines = (
            _prepare_classifier if choice.task == 'classifier' else _prepare_detector)(args, choice)
        from pit_downstream.benchmarks.base import require_counts
        from pit_downstream.evaluation import distributed
        from pit_downstream.results.records import ResultStore
        from pit_downstream.utils.path_checks import write_atomic
        results = measure(ResultStore(Path(args.output_dir) / 'results.jsonl'), predictor, samples, wanted)
        require_counts(results.table, len(samples), allow_missing=args.allow_missing)
        if distributed.rank() == 0:
            print(f'{results.table.model} on {results.table.dataset}, {len(samples)} images', *lines, sep='\n',
                  end='\n\n')
            print(results.text(wanted))
            print(*(f'\nwarning: {text}' for text in results.warnings), sep='', end='')
            for path, text in ((args.csv, results.csv()), (args.json, results.json())):
                if path:
                    write_atomic(path, text)
        distributed.destroy_distributed()


def _prepare_classifier(args: argparse.Namespace, choice: models.ModelChoice) -> tuple:
    """Return the measuring function, predictor, samples, conditions, and lines on preprocessing.

    A source gets the images of the attacked classifier and normalizes them itself.
    """
    models.require_folder(args)  # before weights of a source are downloaded
    sources = conditions.make_sources(args)
    wanted = conditions.choose_attacks(args, ATTACKS['classifier'] if args.attacks is None else args.attacks,
                                       predictors=sources)
    if args.precision == 'fp16':
        raise InputError('--precision fp16 loses small gradients of attacks. Pass bf16; success is decided in float32 '
                         'anyway.')
    predictor = models.load_classifier(args, choice, is_attacked=True)
    samples = models.open_images(args, predictor)
    lines = [models.describe_preprocessing(predictor)]
    transfers = [one.attack for one in wanted if one.attack and one.attack.name == 'transfer']
    for name in sorted({str(attack.get('source')) for attack in transfers}):
        source = sources(name)
        models.require_classes(samples, source)
        classes = source.class_names
        if classes and predictor.class_names and classes != predictor.class_names:
            raise InputError(f'the classes of --source differ from those of --model: {", ".join(classes[:4])} and '
                             f'{", ".join(predictor.class_names[:4])}. Use a source of the same classes and order.')
        lines.append(f'source {source.name}: the same images, {source.preparation.normalization}')
    from pit_downstream.evaluation.robustness import keep_robustness
    return partial(keep_robustness, save=args.save_images, predictors=sources,
                   **models.measure_options(args, predictor.device)), predictor, samples, wanted, lines


def _prepare_detector(args: argparse.Namespace, choice: models.ModelChoice) -> tuple:
    """Return the measuring function, predictor, samples, conditions, and no lines on preprocessing."""
    from pit_downstream import det  # noqa: F401  registers the attacks on detectors
    wanted = conditions.choose_attacks(args, ATTACKS['detector'] if args.attacks is None else args.attacks)
    predictor, samples, cfg = models.load_detector(args, choice)
    from pit_downstream.det import robustness
    from pit_downstream.det.full_resolution import OriginalSizePredictor
    from pit_downstream.det.metric import build_metrics
    options = models.measure_options(args, predictor.device, batch_size=cfg.test_dataloader.get('batch_size', 1))
    attacked = OriginalSizePredictor(predictor) if args.resolution == 'original' else predictor
    return partial(robustness.keep_robustness, metrics=build_metrics(cfg, samples), **options), attacked, samples, \
        wanted, ()
