"""Evaluate a model in any benchmark, also a custom one.

pit-downstream evaluate --benchmark imagenet_c --model pit_s --data data/imagenet/val
pit-downstream evaluate --benchmark my_benchmark --import my_module --model pit_s --data DIR
The flags of the conditions are the fields of the benchmark: `pit-downstream evaluate --benchmark NAME --help`.
"""

import argparse
import sys
from collections.abc import Sequence

from pit_downstream.benchmarks import Benchmark, CocoC, ImageNetC
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors
from pit_downstream.cli.plugins import import_plugins
from pit_downstream.utils.registry import BENCHMARKS


def make_parser(benchmark: type[Benchmark] = ImageNetC) -> flags.ToolParser:
    """Build the parser of a benchmark, whose fields are flags."""
    parser = tools.make_parser(__doc__, benchmark, *benchmark.tasks)
    parser.groups['conditions'].add_argument('--benchmark', required=True, metavar='NAME', help='benchmark: '
                                             f'{", ".join(BENCHMARKS)} or a registered one')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument('--benchmark')
        first.add_argument('--import', dest='imports', nargs='+', default=[])
        given, rest = first.parse_known_args(argv)
        import_plugins(given.imports)
        if given.benchmark is None or (given.benchmark not in BENCHMARKS and ('-h' in rest or '--help' in rest)):
            make_parser().parse_args(argv)
        benchmark = BENCHMARKS[given.benchmark]
        parser = make_parser(benchmark)
        args = parser.parse_args(sys.argv[1:] if argv is None else argv)
        if issubclass(benchmark, (ImageNetC, CocoC)):
            tools.select_corruptions(args)
        tools.run(parser, args, tools.make_benchmark(args, benchmark))
