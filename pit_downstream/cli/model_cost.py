"""Flags of the tool that reports the cost of a model."""

import argparse
from types import SimpleNamespace

from pit_downstream.cli.plugins import add_cwd_to_path
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.utils.errors import InputError

COCO = (800, 1333)  # image size of mmdet's COCO configs, in pixels


def facts_parser(description: str) -> argparse.ArgumentParser:
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('name', metavar='CONFIG|MODEL', help="a detector's config file; or a classifier as --model of the other tools "
        "takes it: a name of timm's or ours, torchvision:NAME, package.module:function")
    add('--shape', nargs=2, type=int_in_range(1), metavar=('H', 'W'),
        help="pixels of an image (default: a classifier's own; "
        f'{COCO[0]} {COCO[1]} for a detector)')
    add('--batch-size', type=int_in_range(1), help='images of the second timing (default: 8 for a classifier, 1 for a '
        'detector)')
    add('--repeats', type=int_in_range(0), default=10, help='timed passes; 0 leaves out time and memory (default: '
        '%(default)s)')
    add('--device', default='auto', help='cpu, cuda, cuda:1 ... (default: a GPU where there is one)')
    add('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE', help='override settings of the '
        'config')
    add('--json', metavar='FILE', help='write every number there')
    return parser


def facts(args: argparse.Namespace):
    """Compute the cost that the flags select. Raises InputError for invalid names and shapes."""
    from pit_downstream.utils.path_checks import require_file_to_write
    if args.json:
        require_file_to_write(args.json, '--json')
    from pit_downstream.evaluation.distributed import init_distributed
    from pit_downstream.utils.slurm import require_one_process
    require_one_process('get_complexity.py')
    device, shape = init_distributed(args.device), args.shape and tuple(args.shape)
    if not args.name.endswith('.py') and '::' not in args.name:
        if args.cfg_options:
            raise InputError(f'expected --cfg-options with a config, got them with the model {args.name}; write '
                             "arguments of a model in brackets: 'pit_s(num_classes=10)'")
        from pit_downstream.evaluation.model_cost import classifier_facts
        from pit_downstream.evaluation.models import build_classifier, is_function
        add_cwd_to_path()
        weights = None if is_function(args.name) else 'random'
        predictor = build_classifier(args.name, weights=weights, device=device)
        return classifier_facts(predictor, shape, batch_size=args.batch_size or 8, repeats=args.repeats)
    from pit_downstream.det import config_utils
    from pit_downstream.det.model_cost import detector_facts
    flags = SimpleNamespace(config=args.name, launcher='none', local_rank=0, bundled=False, data=None, work_dir=None,
                            cfg_options=args.cfg_options)
    return detector_facts(config_utils.read_config(flags, loaders=()), shape or COCO, config=args.name, device=device,
                          batch_size=args.batch_size or 1, repeats=args.repeats)
