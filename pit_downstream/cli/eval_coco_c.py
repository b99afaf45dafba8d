"""Evaluate any mmdet detector on COCO-C: AP under 15 corruptions at 5 severities, and P, mPC and rPC.

pit-downstream eval-coco-c --model retinanet_pit_ti_bccd --weights work_dirs/retinanet_pit_ti_bccd --data data/bccd
pit-downstream eval-coco-c --model mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py --weights fcos.pth
torchrun --nproc-per-node 8 --no-python pit-downstream eval-coco-c --model detr_pit_s --weights work_dirs/detr_pit_s
An interrupted run resumes from its records. A complete run prints its table at once.
"""

from collections.abc import Sequence
from pathlib import Path

from pit_downstream.cli import conditions, flags, models
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'detector')
    flags.add_data_flags(parser, 'detector')
    flags.add_corruption_flags(parser)
    parser.groups['conditions'].add_argument(
        '--bgr', action='store_true', help="corrupt images in BGR order, as mmdet's robustness script does; "
        'recorded with the results (default: off)')
    flags.add_result_flags(parser)
    parser.groups['output'].add_argument('--save-images', metavar='DIR', help='folder for the corrupted images, '
                                         'with one annotation file (default: none)')
    parser.groups['output'].add_argument('--image-format', choices=['png', 'jpg'], default='png',
                                         help='file format of --save-images (default: %(default)s)')
    flags.add_run_flags(parser, 'detector')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        names, variant, wanted = conditions.choose_detection_conditions(args)
        predictor, samples, cfg = models.load_detector(args)
        from pit_downstream.benchmarks import coco_c, tables
        from pit_downstream.benchmarks.base import require_counts
        from pit_downstream.det.metric import build_metrics, build_ground_truth
        from pit_downstream.evaluation import distributed, keep
        from pit_downstream.results.records import ResultStore
        from pit_downstream.utils.path_checks import write_atomic
        if args.save_images:
            from pit_downstream.det.saving import save_images
            save_images(samples, build_ground_truth(cfg, samples), wanted, args.save_images, format=args.image_format,
                        seed=args.seed, workers=args.workers or 0)
        metrics = build_metrics(cfg, samples)
        table = keep.keep_measuring(
            ResultStore(Path(args.output_dir) / 'results.jsonl'), predictor, samples, metrics, wanted,
            **models.measure_options(args, predictor.device, batch_size=cfg.test_dataloader.get('batch_size', 1)))
        require_counts(table, len(samples), allow_missing=args.allow_missing)
        if distributed.rank() == 0:
            print(f'{table.model} on {table.dataset}, AP by {metrics[0].source}\n')
            for metric in metrics:
                print(coco_c.format_table(table, metric.name, names, args.severities, **variant), end='\n\n')
            print(coco_c.format_summary(table, names, args.severities, **variant))
            for path, text in ((args.csv, tables.format_records_csv(table.records)),
                               (args.json, coco_c.format_json(table, **variant))):
                if path:
                    write_atomic(path, text)
        distributed.destroy_distributed()
