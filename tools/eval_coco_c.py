"""Measure any mmdet detector on COCO-C: AP under 15 corruptions x 5 severities, made on the fly; print P, mPC and rPC.

python tools/eval_coco_c.py configs/retinanet_pit_ti_bccd.py work_dirs/retinanet_pit_ti_bccd --data data/bccd
python tools/eval_coco_c.py mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py fcos.pth      a detector that is not ours
torchrun --nproc-per-node 8 tools/eval_coco_c.py configs/detr_pit_s.py work_dirs/detr_pit_s
A stopped run resumes where it was. A complete run prints its table at once.
"""

from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = cli.measured_detector_parser(__doc__)
    cli.add_detection_corruption_flags(parser)
    parser.add_argument('--csv', metavar='FILE', help='write every number with its count')
    parser.add_argument('--json', metavar='FILE', help='write the summary and every number')
    return parser.parse_args()


def main():
    args = parse_args()
    names, variant, conditions = cli.detection_conditions(args)
    from pit_downstream.benchmarks import coco_c, tables
    from pit_downstream.benchmarks.base import require_counts
    from pit_downstream.utils.path_checks import write_atomic
    from pit_downstream.results.records import ResultStore
    from pit_downstream.det.metric import config_metrics
    from pit_downstream.evaluation import keep
    from pit_downstream.evaluation import distributed
    predictor, samples, cfg = cli.detector(args)
    cli.save_corrupted(args, samples, cfg, conditions)
    metrics = config_metrics(cfg, samples)
    store = ResultStore(Path(args.store) / 'results.jsonl')
    table = keep.keep_measuring(store, predictor, samples, metrics, conditions,
                                **cli.measure_options(args, predictor.device))
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


if __name__ == '__main__':
    with cli.report_errors():
        main()
