"""The facts about a model on one page: what it costs by arithmetic, and what was measured on this machine."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch

from pit_downstream.core.spec import Spec
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.complexity import Complexity, Part, classifier_complexity
from pit_downstream.evaluation.speed import Memory, Timing, peak_memory, timing


@dataclass(frozen=True)
class Facts:
    """shape: height and width of the images that the model sees. note: what a reader has to know of these numbers.

    memory, timings: None and empty where nothing was measured.
    """

    model: str
    shape: tuple[int, int]
    complexity: Complexity
    device: str
    memory: Memory | None = None
    timings: tuple[Timing, ...] = ()
    note: str = ''

    def as_dict(self) -> dict:
        """Plain numbers: counts, bytes, seconds."""
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
        yield f'FLOPs        {billions(cost.flops)}  two for each; what many papers print as FLOPs are the MACs'
        yield (f'elementwise  {billions(cost.elementwise)}  biases, sums, norms, activation functions, softmax; with '
               f'them the MACs are {(cost.macs + cost.elementwise) / 1e9:.3f} G')
        yield f'activations  {millions(cost.activations)}  values put out by what MACs count, attention maps too'
        if self.note:
            yield f'             {self.note}'
        if self.timings:
            yield f'memory       {self.memory}'
            yield from (f'time         {one}' for one in self.timings)
            yield (f'             on {self.device}, threads: {torch.get_num_threads()}, float32, torch '
                   f'{torch.__version__}')


def part_lines(cost: Complexity) -> Iterator[str]:
    """A table of the model's children, and of their parts where they have several; equal neighbors are one row."""
    rows = []
    for group in groups(cost.parts):
        inner = [part for part in cost.parts if child(part) == group.name]
        equal = groupby(inner, lambda part: (part.parameters, part.flops))
        rows += [group, *(together([*parts], indent='  ') for _, parts in equal if len(inner) > 1)]
    width = max(len(part.name) for part in rows)
    yield f'{"part":{width}}  parameters          MACs  share of MACs'
    for part in rows:
        yield (f'{part.name:{width}}  {millions(part.parameters)}  {billions(part.macs)}  '
               f'{part.flops / max(cost.flops, 1):13.1%}')


def groups(parts: Sequence[Part]) -> list[Part]:
    """The parts of each child of the model as one: of a detector backbone, neck, head."""
    names = dict.fromkeys(map(child, parts))
    return [replace(together([part for part in parts if child(part) == name]), name=name) for name in names]


def child(part: Part) -> str:
    return part.name.split('.')[0]


def together(parts: Sequence[Part], *, indent: str = '') -> Part:
    """Their sum, as 'blocks.0 to blocks.10'."""
    ends = dict.fromkeys((parts[0].name, parts[-1].name))
    return Part(indent + ' to '.join(ends), sum(part.parameters for part in parts), sum(part.flops for part in parts))


def millions(count: int) -> str:
    return f'{count / 1e6:8.2f} M'


def billions(count: int) -> str:
    return f'{count / 1e9:9.3f} G'


def classifier_facts(predictor: ClassifierPredictor, shape: tuple[int, int] | None, *, batch_size: int = 8,
                     repeats: int = 10) -> Facts:
    """Of a classifier on its device. shape: (height, width), its own by default. repeats: 0 measures nothing.

    Raises ValueError for a shape that the model does not take.
    """
    side = predictor.view.size or 224
    height, width = shape or (side, side)
    model = predictor.model.eval()
    cost = classifier_complexity(model, height, width)
    images = torch.zeros(batch_size, 3, height, width, device=predictor.device)
    name = str(Spec.parse(predictor.name).without('weights', 'mean', 'std'))  # costs depend on none of them
    return measured(Facts(name, (height, width), cost, device_name(predictor.device)),
                    lambda count: lambda: model(images[:count]), batch_size, device=predictor.device, repeats=repeats)


def measured(facts: Facts, passes: Callable[[int], Callable[[], Any]], batch_size: int, *, device: torch.device,
             repeats: int) -> Facts:
    """With the peak memory of one image's pass, its latency, and the throughput of a batch. repeats: 0 leaves it be.

    passes: what gives a pass over so many images.
    """
    if not repeats:
        return facts
    with torch.inference_mode():
        memory = peak_memory(passes(1), device)
        timings = [timing(passes(count), count, device=device, repeats=repeats) for count in sorted({1, batch_size})]
    return replace(facts, memory=memory, timings=tuple(timings))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()
