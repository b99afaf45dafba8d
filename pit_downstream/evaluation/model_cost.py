"""Cost of a model on one page: computed complexity, and memory and time measured on this machine."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch

from pit_downstream.utils.spec import Spec
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.complexity import Complexity, Part, classifier_complexity
from pit_downstream.evaluation.speed import Memory, Timing, peak_memory, timing


@dataclass(frozen=True)
class Facts:
    """Cost of one model.

    `shape` is the height and width of the model's input images. `note` is a remark on the numbers. `memory` and
    `timings` are None and empty if nothing was measured.
    """

    model: str
    shape: tuple[int, int]
    complexity: Complexity
    device: str
    memory: Memory | None = None
    timings: tuple[Timing, ...] = ()
    note: str = ''

    def as_dict(self) -> dict:
        """Return plain numbers: counts, bytes, seconds."""
        cost = self.complexity
        return {
            'model': self.model, 'shape': list(self.shape), 'parameters': cost.parameters, 'macs': cost.macs,
            'flops': cost.flops, 'elementwise': cost.elementwise, 'activations': cost.activations,
            'parts': [{**asdict(part), 'macs': part.macs} for part in cost.parts],
            'groups': [{**asdict(part), 'macs': part.macs} for part in groups(cost.parts)],
            'memory': self.memory and {'bytes': self.memory.peak, 'what': self.memory.what},
            'timings': [{'batch': one.batch, 'repeats': len(one.seconds), 'median_seconds': one.median,
                         'images_per_second': one.throughput, 'seconds': list(one.seconds)} for one in self.timings],
            'note': self.note, 'device': self.device, 'threads': torch.get_num_threads(), 'dtype': 'float32',
            'torch': torch.__version__}

    def as_text(self) -> str:
        return '\n'.join((f'{self.model}, one image of {self.shape[0]} x {self.shape[1]}', *self._numbers(), '',
                          *part_lines(self.complexity)))

    def _numbers(self) -> Iterator[str]:
        cost = self.complexity
        yield f'parameters   {millions(cost.parameters)}'
        yield f'MACs         {billions(cost.macs)}  multiply-adds of convolutions, linear layers and attention'
        yield f'FLOPs        {billions(cost.flops)}  two per MAC; many papers report MACs as FLOPs'
        yield (f'elementwise  {billions(cost.elementwise)}  biases, sums, norms, activation functions, softmax; with '
               f'them the MACs are {(cost.macs + cost.elementwise) / 1e9:.3f} G')
        yield f'activations  {millions(cost.activations)}  output values of the counted layers, with attention maps'
        if self.note:
            yield f'             {self.note}'
        if self.timings:
            yield f'memory       {self.memory}'
            yield from (f'time         {one}' for one in self.timings)
            yield (f'             on {self.device}, threads: {torch.get_num_threads()}, float32, torch '
                   f'{torch.__version__}')


def part_lines(cost: Complexity) -> Iterator[str]:
    """Yield a table of the model's children and their parts. Equal neighbors share one row."""
    rows = []
    for group in groups(cost.parts):
        inner = [part for part in cost.parts if child(part) == group.name]
        equal = groupby(inner, lambda part: (part.parameters, part.flops))
        rows += [group, *(sum_parts([*parts], indent='  ') for _, parts in equal if len(inner) > 1)]
    width = max(len(part.name) for part in rows)
    yield f'{"part":{width}}  parameters          MACs  share of MACs'
    for part in rows:
        yield (f'{part.name:{width}}  {millions(part.parameters)}  {billions(part.macs)}  '
               f'{part.flops / max(cost.flops, 1):13.1%}')


def groups(parts: Sequence[Part]) -> list[Part]:
    """Return one part per child of the model, e.g. backbone, neck and head of a detector."""
    names = dict.fromkeys(map(child, parts))
    return [replace(sum_parts([part for part in parts if child(part) == name]), name=name) for name in names]


def child(part: Part) -> str:
    return part.name.split('.')[0]


def sum_parts(parts: Sequence[Part], *, indent: str = '') -> Part:
    """Return the sum of the parts, with a name like 'blocks.0 to blocks.10'."""
    ends = dict.fromkeys((parts[0].name, parts[-1].name))
    return Part(indent + ' to '.join(ends), sum(part.parameters for part in parts), sum(part.flops for part in parts))


def millions(count: int) -> str:
    return f'{count / 1e6:8.2f} M'


def billions(count: int) -> str:
    return f'{count / 1e9:9.3f} G'


def classifier_facts(predictor: ClassifierPredictor, shape: tuple[int, int] | None, *, batch_size: int = 8,
                     repeats: int = 10) -> Facts:
    """Compute and measure the cost of a classifier on its device.

    `shape` is (height, width), by default the model's input size. With repeats=0 nothing is measured. Raises InputError
    for a shape that the model does not accept.
    """
    side = predictor.view.size or 224
    height, width = shape or (side, side)
    model = predictor.model.eval()
    cost = classifier_complexity(model, height, width)
    images = torch.zeros(batch_size, 3, height, width, device=predictor.device)
    name = str(Spec.parse(predictor.name).without('weights', 'mean', 'std'))  # the cost does not depend on them
    return measured(Facts(name, (height, width), cost, device_name(predictor.device)),
                    lambda count: lambda: model(images[:count]), batch_size, device=predictor.device, repeats=repeats)


def measured(facts: Facts, passes: Callable[[int], Callable[[], Any]], batch_size: int, *, device: torch.device,
             repeats: int) -> Facts:
    """Add the peak memory and latency of one image, and the throughput of a batch. With repeats=0 return `facts`.

    `passes` returns a function that runs a pass over the given number of images.
    """
    if not repeats:
        return facts
    with torch.inference_mode():
        memory = peak_memory(passes(1), device)
        timings = [timing(passes(count), count, device=device, repeats=repeats) for count in sorted({1, batch_size})]
    return replace(facts, memory=memory, timings=tuple(timings))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
