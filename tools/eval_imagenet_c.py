"""Measure a classifier on ImageNet-C, the corruptions computed on the fly; print errors, CE and mCE.

python tools/eval_imagenet_c.py --model pit_s --data data/imagenet/val --store work_dirs/imagenet_c
torchrun --nproc-per-node 8 tools/eval_imagenet_c.py --model pit_s --amp bf16
A stopped run resumes where it was. A complete run prints its table at once.
"""

from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = cli.classifier_parser(__doc__)
    cli.add_corruption_flags(parser)
    parser.add_argument('--csv', metavar='FILE', help='write every number with its interval and count')
    parser.add_argument('--json', metavar='FILE', help='write the summary and every number')
    return parser.parse_args()


def main():
    args = parse_args()
    names = cli.chosen_corruptions(args)
    cli.require_folder(*((args.published, '--published') if args.published else (args.data, '--data')))
    from pit_downstream.benchmarks import imagenet_c, tables
    from pit_downstream.benchmarks.base import require_counts
    from pit_downstream.utils.path_checks import write_atomic
    from pit_downstream.results.records import ResultStore
    from pit_downstream.evaluation import keep
    from pit_downstream.evaluation import distributed
    from pit_downstream.metrics.classification import classification_metrics
    predictor = cli.classifier(args)
    samples = cli.published_images(args, predictor, names) if args.published else cli.pictures(args, predictor)
    table = keep.keep_measuring(ResultStore(Path(args.store) / 'results.jsonl'), predictor, samples,
                                classification_metrics(), cli.corruption_conditions(args, names),
                                **cli.measure_options(args, predictor.device))
    require_counts(table, len(samples), allow_missing=args.allow_missing)
    if distributed.rank() == 0:
        variant = cli.corruption_variant(args)
        chosen = names, args.severities
        print(f'{table.model} on {table.dataset}, {tables.format_image_count(table)}')
        print(cli.preprocessing(predictor, published=bool(args.published)), end='\n\n')
        print(imagenet_c.format_table(table, *chosen, **variant), end='\n\n')
        print(imagenet_c.format_summary(table, *chosen, run=cli.command_without_corruptions(), **variant))
        for path, text in ((args.csv, tables.format_records_csv(table.records)),
                           (args.json, imagenet_c.format_json(table, *chosen, **variant))):
            if path:
                write_atomic(path, text)
    distributed.destroy_distributed()


if __name__ == '__main__':
    with cli.report_errors():
        main()
