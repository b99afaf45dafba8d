"""Measure and draw the attention collapse of a classifier: similarity of blocks, profiles by depth, maps on images.

pit-downstream analyze-attention --model deepvit_s --weights W.pth --data DIR --output-dir DIR
pit-downstream analyze-attention --model vit_32 --compare deepvit_32 --bundled --limit 32 --output-dir DIR \\
    --weights random --compare-weights random
torchrun --nproc-per-node 8 --no-python pit-downstream analyze-attention --model pit_s --data DIR --output-dir DIR
An interrupted run resumes from its outcomes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pit_downstream.benchmarks.attention import Attention
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.extras import require_extra


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    flags.add_model_flags(parser, 'classifier')
    add = parser.groups['model'].add_argument
    add('--compare', metavar='NAME', help='second model in the same figures, as --model (default: none)')
    add('--compare-weights', metavar='WEIGHTS', help='weights of the second model, as --weights (default: pretrained)')
    add = parser.groups['data'].add_argument
    add('--data', metavar='DIR', help='folder of images, at any depth (--data or --bundled is required)')
    add('--bundled', action='store_true', help='use the bundled dataset, generated in data/shapes on first use '
        '(default: off)')
    add('--limit', type=int_in_range(1), metavar='N', help='number of evenly spaced images to use (default: all)')
    flags.add_preprocess_flags(parser)
    flags.add_benchmark_flags(parser, Attention)
    flags.add_result_flags(parser)
    flags.add_run_flags(parser, 'classifier')
    parser.set_defaults(output_dir=None, batch_size=8)
    flags.add_dry_run_flag(parser)
    flags.add_import_flag(parser, 'corruptions')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        require_extra('report')
        if not args.output_dir:
            raise InputError('--output-dir is missing: the folder for results and figures. Pass --output-dir DIR.')
        if bool(args.data) == args.bundled:
            raise InputError('--data DIR or --bundled selects the images. Pass one of them.')
        if args.compare_weights and not args.compare:
            raise InputError('--compare-weights is without a second model. Pass --compare MODEL.')
        flags.check_outputs(args)
        benchmark = tools.make_benchmark(args, Attention)
        from pit_downstream import api
        from pit_downstream.evaluation import attention_analysis, distributed, inputs
        from pit_downstream.results.records import get_model_key
        options = {'preprocess': args.preprocess, 'img_size': args.img_size, 'mean': args.mean, 'std': args.std}
        predictors = []
        for model, weights in ((args.model, args.weights), (args.compare, args.compare_weights)):
            if model:
                _, name, chosen = api.choose_model(model, weights, 'classifier')
                predictors.append(inputs.load_classifier(
                    name, weights=chosen, seed=args.seed, device=args.device, precision=args.precision,
                    compile=args.compile, build=attention_analysis.build_model, **options))
                attention_analysis.check_traceable(predictors[-1])
        if len({get_model_key(predictor.name) for predictor in predictors}) < len(predictors):
            raise InputError(f'--compare must be another model, got {predictors[0].name} twice. Pass other weights.')
        results = [api.evaluate(predictor, benchmark, data=args.data, bundled=args.bundled, limit=args.limit,
                                output_dir=args.output_dir, batch_size=args.batch_size, workers=args.workers,
                                allow_missing=args.allow_missing, seed=args.seed, dry_run=args.dry_run, argv=sys.argv)
                   for predictor in predictors]
        if distributed.rank() == 0 and not args.dry_run:
            print(*results, sep='\n\n')
            tools.write_files(args, results[0])
            samples = [inputs.open_unlabeled_images(predictor, args.data, bundled=args.bundled, limit=args.limit,
                                                    exclude=args.output_dir) for predictor in predictors]
            print(*attention_analysis.draw_attention(results, predictors, samples, Path(args.output_dir)), sep='\n')
        distributed.destroy_distributed()
