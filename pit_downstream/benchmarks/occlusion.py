"""Occlusion: accuracy of a classifier on images of which a growing share is black."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pit_downstream.benchmarks.adversarial import get_accuracy
from pit_downstream.benchmarks.base import Benchmark
from pit_downstream.benchmarks.imagenet_c import METRICS
from pit_downstream.results.condition import CLEAN, Condition
from pit_downstream.results.intervals import Estimate
from pit_downstream.results.layout import Layout
from pit_downstream.utils.registry import BENCHMARKS
from pit_downstream.utils.spec import Spec

if TYPE_CHECKING:
    from pit_downstream.results.results import Results


@BENCHMARKS.register('occlusion')
@dataclass(frozen=True)
class Occlusion(Benchmark):
    """Errors over the occluded share of an image, for random cells and for the center (corruptions.occlusion).

    Attributes:
        shares: Occluded shares of an image, in (0, 1].
        shapes: 'random' cells, 'center', or both.
        cells: Cells per side.
    """

    name = 'occlusion'
    title = 'Occlusion'
    about = 'Top-1 error in percent on images of which a share is black: random cells, or the center.'
    layout = Layout(rows='shape', columns='share', mean=False)

    shares: tuple[str, ...] = field(default=('0.1', '0.3', '0.5', '0.7', '0.9'), metadata={
        'help': 'occluded shares of an image', 'metavar': 'X'})
    shapes: tuple[str, ...] = field(default=('random', 'center'), metadata={'help': 'random cells, center'})
    cells: int = field(default=14, metadata={'help': 'cells per side'})

    def conditions(self) -> tuple[Condition, ...]:
        return (CLEAN, *(Condition(Spec.of('occlusion', shape=shape, cells=self.cells, share=float(share)))
                         for shape in self.shapes for share in self.shares))

    def metric_names(self, task: str) -> tuple[str, ...]:
        return METRICS

    def summarize(self, results: 'Results') -> dict[str, Estimate]:
        """Return the accuracy by condition: 'accuracy(clean)' ... Raises MissingMeasurement for missing ones."""
        results.table.require(self.required())
        return {f'accuracy({condition})': get_accuracy(results.table, condition) for condition in self.conditions()}
