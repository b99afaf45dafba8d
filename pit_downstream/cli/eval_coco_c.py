"""Evaluate any mmdet detector on COCO-C: AP under 15 corruptions at 5 severities, and P, mPC and rPC.

pit-downstream eval-coco-c --model retinanet_pit_ti_bccd --weights work_dirs/retinanet_pit_ti_bccd --data data/bccd
pit-downstream eval-coco-c --model mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py --weights fcos.pth
torchrun --nproc-per-node 8 --no-python pit-downstream eval-coco-c --model detr_pit_s --weights work_dirs/detr_pit_s
An interrupted run resumes from its outcomes. A complete run prints its table at once.
"""

from collections.abc import Sequence

from pit_downstream.benchmarks.coco_c import CocoC
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = tools.make_parser(__doc__, CocoC, 'detector')
    add = parser.groups['output'].add_argument
    add('--save-images', metavar='DIR', help='folder for the corrupted images, with one annotation file (default: '
        'none)')
    add('--image-format', choices=['png', 'jpg'], default='png', help='file format of --save-images (default: '
        '%(default)s)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        if args.corruptions == ['none']:
            args.corruptions = []
        else:
            tools.select_corruptions(args)
        benchmark = tools.make_benchmark(args, CocoC)
        if args.save_images:
            _save_images(args, benchmark)
            args.save_images = None
        tools.run(parser, args, benchmark)


def _save_images(args, benchmark: CocoC) -> None:
    """Write the corrupted images that the detector is evaluated on."""
    flags.check_outputs(args)
    from pit_downstream import api
    _, config, weights = api.choose_model(args.model, args.weights, 'detector')
    from pit_downstream.det.inputs import load_detector
    from pit_downstream.det.metric import build_ground_truth
    from pit_downstream.det.saving import save_images
    opened = load_detector(config, str(weights), data=args.data, images=args.images, bundled=args.bundled,
                           cfg_options=args.cfg_options, limit=args.limit, device=args.device, seed=args.seed)
    save_images(opened.samples, build_ground_truth(opened.cfg, opened.samples), benchmark.conditions(),
                args.save_images, format=args.image_format, seed=args.seed, workers=args.workers or 0)
