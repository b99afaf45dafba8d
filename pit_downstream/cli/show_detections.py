"""Draw the detections in one image side by side: clean, corrupted and attacked.

pit-downstream show-detections --model retinanet_pit_ti_bccd --weights work_dirs/retinanet_pit_ti_bccd --data data/bccd
pit-downstream show-detections --model detr_pit_s --weights work_dirs/detr_pit_s --bundled --image 3 \\
    --output detr.png --corruptions 'frost(severity=5)' --attacks "tog(epsilon=8/255, mode='vanishing')"
"""

import argparse
from collections.abc import Sequence

from pit_downstream.api import choose_model
from pit_downstream.cli import flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'detector')
    flags.add_data_flags(parser, 'detector')
    parser.groups['data'].add_argument('--image', type=int_in_range(0), default=0, metavar='N', help='index of the '
                                       'image in the dataset (default: %(default)s)')
    add = parser.groups['conditions'].add_argument
    add('--corruptions', nargs='*', default=['fog(severity=3)'], metavar='CORRUPTION', help='corruptions with their '
        'arguments (default: fog(severity=3))')
    add('--attacks', nargs='*', default=['pgd(epsilon=8/255, steps=10)'], metavar='ATTACK', help='attacks with their '
        'arguments (default: pgd(epsilon=8/255, steps=10))')
    add = parser.groups['output'].add_argument
    add('--output', default='detections.png', metavar='FILE', help='image file to write (default: %(default)s)')
    add('--score-thr', type=float, default=0.5, metavar='SCORE', help='minimum score of a box (default: %(default)s)')
    flags.add_device_flag(parser)
    flags.add_seed_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.utils.path_checks import replace_atomically, require_image_to_write
        from pit_downstream.utils.slurm import require_one_process
        require_image_to_write(args.output, '--output')
        require_one_process('show_detections.py')
        choose_model(args.model, args.weights, 'detector')
        wanted = _choose_conditions(args)
        opened = models.load_detector(args)
        predictor, samples = opened.predictor, opened.samples
        if args.image >= len(samples):
            raise InputError(f'--image must be in 0..{len(samples) - 1}, got {args.image}.')
        sample = samples[args.image]
        from pit_downstream.det.visualization import draw_panels
        sheet = draw_panels(predictor, sample, wanted, samples.classes, score_thr=args.score_thr, seed=args.seed)
        with replace_atomically(args.output) as new:
            sheet.save(new)
        print(f'{args.output}: image {sample.id} of {samples.name}')


def _choose_conditions(args: argparse.Namespace) -> list[Condition]:
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
