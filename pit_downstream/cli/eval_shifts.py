"""Evaluate a classifier on shifted datasets (ImageNet-A, -R, -Sketch, -V2, ReaL, ObjectNet, IN-9): errors and gaps.

pit-downstream eval-shifts --model pit_s --shifts imagenet_a=DIR imagenet_r=DIR in9=DIR imagenet_real
pit-downstream eval-shifts --model pit_s              # every dataset in data/ (data/README.md)
pit-downstream eval-shifts --model MODEL --weights FILE --data DIR --shifts shift_fog=DIR     # a custom dataset
--data has ImageNet's validation images, for ReaL and for the clean error of the same classes. An interrupted run
resumes from its outcomes. A complete run prints its table at once.
"""

from collections.abc import Sequence

from pit_downstream.benchmarks.shifts import Shifts
from pit_downstream.cli import benchmark_tools as tools
from pit_downstream.cli import flags
from pit_downstream.cli.errors import report_errors


def make_parser() -> flags.ToolParser:
    return tools.make_parser(__doc__, Shifts, 'classifier')


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        tools.run(parser, args, tools.make_benchmark(args, Shifts))
