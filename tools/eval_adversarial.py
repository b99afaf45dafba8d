"""Measure a classifier or a detector under adversarial attacks; print its accuracy or AP on all images, by attack.

python tools/eval_adversarial.py --model pit_s --limit 1000 --attacks fgsm 'pgd(steps=20)' autoattack
python tools/eval_adversarial.py --model pit_s --attacks 'pgd(steps=20)' --norm L2 --epsilons 0.5 1 2 --save images
python tools/eval_adversarial.py --model pit_s --attacks mim --source resnet50 --epsilons 16/255
torchrun --nproc-per-node 8 tools/eval_adversarial.py --model pit_s --epsilons 4/255 --amp bf16
python tools/eval_adversarial.py --config configs/retinanet_pit_ti.py work_dirs/retinanet_pit_ti --bundled \\
    --attacks noise "pgd(steps=10, loss='cls')" "tog(mode='vanishing')" dag
A stopped run resumes where it was. --amp applies to the search only: success is decided in float32.
"""

from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = cli.attack_parser(__doc__)
    parser.add_argument('--csv', metavar='FILE', help='write every number with its count')
    parser.add_argument('--json', metavar='FILE', help='write the summary, curves, worst cases and every number')
    return parser.parse_args()


def main():
    args = parse_args()
    conditions = cli.attack_conditions(args)
    keep, predictor, samples = cli.attacked(args)
    from pit_downstream.benchmarks.base import require_counts
    from pit_downstream.utils.path_checks import write_atomic
    from pit_downstream.results.records import ResultStore
    from pit_downstream.evaluation import distributed
    found = keep(ResultStore(Path(args.store) / 'results.jsonl'), predictor, samples, conditions, save=args.save,
                 predictors=args.predictors, **cli.measure_options(args, predictor.device))
    require_counts(found.table, len(samples), allow_missing=args.allow_missing)
    if distributed.rank() == 0:
        print(f'{found.table.model} on {found.table.dataset}, {len(samples)} images',
              *cli.attacked_preprocessing(args, predictor), sep='\n', end='\n\n')
        print(found.text(conditions))
        print(*(f'\nwarning: {sentence}' for sentence in found.warnings), sep='', end='')
        for path, text in ((args.csv, found.csv()), (args.json, found.json())):
            if path:
                write_atomic(path, text)
    distributed.destroy_distributed()


if __name__ == '__main__':
    with cli.report_errors():
        main()
