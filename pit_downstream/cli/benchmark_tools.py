"""Tools that evaluate a benchmark: their flags, and the call of `pit_downstream.api.evaluate`."""

import argparse
import sys
from collections.abc import Sequence
from typing import TypeVar

from pit_downstream.benchmarks.base import Benchmark, get_fields
from pit_downstream.cli import flags
from pit_downstream.cli.plugins import add_cwd_to_path, import_plugins
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.imports import pause_garbage_collection

B = TypeVar('B', bound=Benchmark)

CLASSIFIER_FLAGS = ('--labels', '--classes', '--cache', '--preprocess', '--img-size', '--mean', '--std', '--source',
                    '--save-images', '--precision', '--compile')
DETECTOR_FLAGS = ('--cfg-options', '--images', '--resolution')


def make_parser(description: str, benchmark: type[Benchmark], *tasks: str) -> flags.ToolParser:
    """Build the parser of a tool that evaluates `benchmark`, for models of `tasks`."""
    parser = flags.ToolParser(description)
    flags.add_model_flags(parser, *tasks)
    flags.add_data_flags(parser, *tasks)
    if 'classifier' in tasks:
        flags.add_preprocess_flags(parser)
    flags.add_benchmark_flags(parser, benchmark)
    flags.add_result_flags(parser)
    flags.add_run_flags(parser, *tasks)
    flags.add_dry_run_flag(parser)
    flags.add_import_flag(parser, 'benchmarks, corruptions or attacks')
    return parser


def make_benchmark(args: argparse.Namespace, benchmark: type[B]) -> B:
    """Return the benchmark with the fields that the flags set."""
    given = {field.name: getattr(args, field.name, None) for field in get_fields(benchmark)}
    return benchmark(**{name: tuple(value) if isinstance(value, list) else value
                        for name, value in given.items() if value is not None})


def evaluate(args: argparse.Namespace, benchmark: Benchmark, *, model: str | None = None, weights: str | None = None):
    """Evaluate the model of the flags, and return the results. model, weights: in place of those of the flags."""
    flags.check_outputs(args)
    add_cwd_to_path()
    with pause_garbage_collection():
        from pit_downstream import api
        from pit_downstream.evaluation.inputs import get_parameters
    own = {field.name for field in get_fields(type(benchmark))}
    names = get_parameters(api.evaluate) - {'argv', 'progress'} - own
    options = {name: value for name, value in vars(args).items() if name in names}
    if model is not None:
        options['weights'] = weights
    return api.evaluate(model or args.model, benchmark, argv=sys.argv, **options)


def run(parser: flags.ToolParser, args: argparse.Namespace, benchmark: Benchmark) -> None:
    """Evaluate, print the results on rank 0 and write the files of the flags."""
    results = evaluate(args, benchmark)
    from pit_downstream.evaluation import distributed
    if distributed.rank() == 0 and not getattr(args, 'dry_run', False):
        print(results)
        write_files(args, results)
    distributed.destroy_distributed()


def write_files(args: argparse.Namespace, results) -> None:
    """Write the files of --csv, --json, --latex and --markdown."""
    for path, write in ((args.csv, results.to_csv), (args.json, results.to_json), (args.latex, results.to_latex),
                        (args.markdown, results.to_markdown)):
        if path:
            write(path)


def choose_task(parser: flags.ToolParser, args: argparse.Namespace) -> str:
    """Return the task of --model, and reject the flags of the other task."""
    from pit_downstream import api
    task, name, _ = api.choose_model(args.model, args.weights, 'classifier', 'detector')
    other, wrong = ('detector', DETECTOR_FLAGS) if task == 'classifier' else ('classifier', CLASSIFIER_FLAGS)
    flags.reject_flags(parser, args, [flag for flag in wrong if f'{flag}' in parser._option_string_actions],
                       f'applies to a {other}, got a {task}: {name}')
    return task


def select_corruptions(args: argparse.Namespace, *, is_registered: bool = True) -> None:
    """Replace the groups benchmark, extra and all in --corruptions by their names, and check these and --severities.

    is_registered: corruptions must be known, as they are computed and not read from files.
    """
    from pit_downstream.benchmarks import imagenet_c
    import_plugins(args.imports)
    wrong = [severity for severity in args.severities or () if severity not in imagenet_c.SEVERITIES]
    if wrong:
        raise InputError(f'severity must be in 1..5, got {wrong[0]}. Clean images are measured without a severity.')
    args.corruptions = expand_groups(args.corruptions or ['benchmark'])
    if is_registered:
        from pit_downstream.utils.registry import CORRUPTIONS
        with pause_garbage_collection():
            from pit_downstream import corruptions  # noqa: F401  registers them
        for name in args.corruptions:
            CORRUPTIONS.get_entry(name)


def expand_groups(names: Sequence[str]) -> list[str]:
    """Return names of corruptions, with those of the groups benchmark, extra and all in place of the group."""
    from pit_downstream.benchmarks import imagenet_c
    groups = {'benchmark': imagenet_c.CORRUPTIONS, 'extra': imagenet_c.HOLD_OUT,
              'all': imagenet_c.CORRUPTIONS + imagenet_c.HOLD_OUT}
    return list(dict.fromkeys(name for given in names for name in groups.get(given, (given,))))
