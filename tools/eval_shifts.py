"""Measure a classifier on ImageNet-A, -R, -Sketch, -V2, ReaL, ObjectNet, IN-9; print errors and gaps to clean ones.

python tools/eval_shifts.py --model pit_s --shifts imagenet_a=DIR imagenet_r=DIR in9=DIR imagenet_real
python tools/eval_shifts.py --model pit_s              # every dataset in data/ (data/README.md)
python tools/eval_shifts.py --model MODEL --weights FILE --data DIR --shifts shift_fog=DIR     # a custom dataset
--data has ImageNet's validation images, for ReaL and for the clean error of the same classes (default:
data/imagenet/val). A stopped run resumes where it was. A complete run prints its table at once.
"""

from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = cli.classifier_parser(__doc__)
    cli.add_shift_flags(parser)
    parser.add_argument('--csv', metavar='FILE', help='write every number with its interval and count')
    parser.add_argument('--json', metavar='FILE', help='write the summary and every number')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.benchmarks import shifts
    from pit_downstream.utils.path_checks import write_atomic
    from pit_downstream.results.records import ResultStore
    from pit_downstream.evaluation import distributed
    from pit_downstream.evaluation.shifts import measure_shifts
    places = cli.shift_places(args)
    predictor = cli.classifier(args)
    datasets, clean = cli.shifts(args, places, predictor)
    tables = measure_shifts(ResultStore(Path(args.store) / 'results.jsonl'), predictor, datasets, clean,
                            **cli.measure_options(args, predictor.device))
    if distributed.rank() == 0:
        names = list(datasets)
        print(f'{predictor.name}\n{cli.preprocessing(predictor)}\n')
        print(shifts.format_table(tables, names))
        if summary := shifts.format_summary(tables, names):
            print(f'\n{summary}')
        for path, text in ((args.csv, shifts.format_csv(tables)), (args.json, shifts.format_json(tables, names))):
            if path:
                write_atomic(path, text)
    distributed.destroy_distributed()


if __name__ == '__main__':
    with cli.report_errors():
        main()
