"""Print the cost of a model: parameters, MACs, FLOPs, activations, the share of each part, memory and time.

pit-downstream get-complexity --model pit_s --shape 224 224
pit-downstream get-complexity --model retinanet_pit_s --shape 800 1333 --repeats 0
Weights are random, because the costs do not depend on them. Operations of a classifier are counted on the meta device.
Not counted: pooling, interpolation, the sampling of deformable attention, and steps after a detector's heads.
"""

import argparse
import json
from collections.abc import Sequence

from pit_downstream.api import choose_model
from pit_downstream.cli import flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import add_cwd_to_path

COCO = (800, 1333)  # image size of mmdet's COCO configs, in pixels


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    parser.groups['model'].add_argument('--model', required=True, metavar='NAME', help=f'{flags.CLASSIFIER}'
                                        f'{flags.CLASSIFIER_CONFIG}; or {flags.DETECTOR}')
    flags.add_config_options(parser)
    parser.groups['preprocessing'].add_argument(
        '--shape', nargs=2, type=int_in_range(1), metavar=('H', 'W'), help='image size in pixels (default: the input '
        f'size of a classifier; {COCO[0]} {COCO[1]} for a detector)')
    parser.groups['output'].add_argument('--json', metavar='FILE', help='file for every number (default: none)')
    add = parser.groups['run'].add_argument
    add('--batch-size', type=int_in_range(1), metavar='N', help='batch size of the second timing (default: 8 for a '
        'classifier, 1 for a detector)')
    add('--repeats', type=int_in_range(0), default=10, metavar='N', help='timed passes; 0 omits time and memory '
        '(default: %(default)s)')
    flags.add_device_flag(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        cost = _measure_cost(parser, args)
        print(cost.as_text())
        if args.json:
            from pit_downstream.utils.path_checks import write_atomic
            write_atomic(args.json, json.dumps(cost.as_dict(), indent=1) + '\n')


def _measure_cost(parser: argparse.ArgumentParser, args: argparse.Namespace):
    """Compute the cost that the flags select. Raises InputError for invalid names and shapes."""
    from pit_downstream.utils.slurm import require_one_process
    flags.check_outputs(args)
    require_one_process('get_complexity.py')
    task, name, _ = choose_model(args.model, 'random', 'classifier', 'detector')
    from pit_downstream.evaluation.distributed import init_distributed
    device, shape = init_distributed(args.device), args.shape and tuple(args.shape)
    if task == 'classifier':
        flags.reject_flags(parser, args, ('--cfg-options',), f'applies to a detector, got a classifier: {name}, '
                           "whose arguments are in brackets: 'pit_s(num_classes=10)'")
        from pit_downstream.evaluation.model_cost import classifier_facts
        from pit_downstream.evaluation.models import build_classifier, is_function
        add_cwd_to_path()
        weights = None if is_function(name) else 'random'
        predictor = build_classifier(name, weights=weights, device=device)
        return classifier_facts(predictor, shape, batch_size=args.batch_size or 8, repeats=args.repeats)
    from pit_downstream.det.inputs import read_detector_config
    from pit_downstream.det.model_cost import measure_detector
    cfg = read_detector_config(name, **models.get_data_options(args))
    return measure_detector(cfg, shape or COCO, config=name, device=device, batch_size=args.batch_size or 1,
                            repeats=args.repeats)
