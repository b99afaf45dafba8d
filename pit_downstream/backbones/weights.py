"""Checkpoints of any origin -> the state dict of one of our modules, with a report. Pure functions on dicts."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pit_downstream.checkpoints import unwrap
from pit_downstream.backbones.layers import resize_grid


@dataclass(frozen=True)
class WeightsReport:
    """What became of a checkpoint: names of the module's tensors loaded and missing, and of the file's tensors left.

    new: tensors of the module that no such checkpoint has (output norms, say), which keep their values.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    left: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f'{len(self.loaded)} of {len(self.loaded) + len(self.missing)} tensors loaded'
        for label, names in (('adapted', self.adapted), ('missing', self.missing), ('new', self.new),
                             ('left in the file', self.left)):
            if names:
                text += f'; {label}: {_listed(names)}'
        return text


def strip_prefix(state: Mapping[str, Tensor], anchor: str) -> dict[str, Tensor]:
    """Keep what stands beside the parameter `anchor` and drop the names before it: 'module.', 'backbone.', ...

    Returns {} when no name ends in `anchor`. Of several candidates the outermost is taken.
    """
    prefixes = [name[:-len(anchor)] for name in state if name == anchor or name.endswith('.' + anchor)]
    if not prefixes:
        return {}
    prefix = min(prefixes, key=len)
    return {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}


def timm_to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm keeps the pool in front of stage i + 1 (`transformers.1.pool`), the official code beside it (`pools.0`)."""
    def rename(name: str) -> str:
        return re.sub(r'^transformers\.(\d+)\.pool\.', lambda match: f'pools.{int(match[1]) - 1}.', name)
    return {rename(name): value for name, value in state.items()}


def fit(state: Mapping[str, Tensor], target: Mapping[str, Tensor], *, optional: Collection[str] = ()
        ) -> tuple[dict[str, Tensor], WeightsReport]:
    """Choose and adapt the tensors of `state` that `target` (a module's state dict) wants.

    Two things are adapted: `pos_embed`, a grid (1, D, h, w) or a class token and a square (1, 1 + n^2, D), is resampled
    to the module's grid, and of the two tokens of a distilled `cls_token` a module with one takes the first. Any other
    difference in shape counts as missing.
    """
    fitted, adapted = {}, []
    for name, wanted in target.items():
        value = state.get(name)
        if value is None:
            continue
        if value.shape != wanted.shape:
            value = _adapt(name, value, wanted)
            if value is None:
                continue
            adapted.append(f'{name} {_shape(state[name])} -> {_shape(wanted)}')
        fitted[name] = value
    lacking = [name for name in target if name not in fitted]
    return fitted, WeightsReport(
        loaded=tuple(fitted), missing=tuple(name for name in lacking if name not in optional),
        left=tuple(name for name in state if name not in fitted), adapted=tuple(adapted),
        new=tuple(name for name in lacking if name in optional))


@dataclass(frozen=True)
class Family:
    """Checkpoints of one architecture. anchor: a tensor that each of them has. settings: what must agree with a file.

    rename: from the other spellings of parameter names to the official one.
    """

    name: str
    anchor: str
    settings: str
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict

    def convert(self, checkpoint: Mapping, target: Mapping[str, Tensor], *, optional: Collection[str] = (),
                depth: int | None = None) -> tuple[dict[str, Tensor], WeightsReport]:
        """Convert any checkpoint (official, timm, DDP, EMA, detector) to the names and shapes of `target`.

        depth: how many `blocks` the whole architecture has, of which `target` may hold the first ones only.
        Raises ValueError when a tensor of `target` that is not `optional` cannot be had, or when the file's blocks
        are more than `depth`, or hold more than the target's: nobody should train from noise, or from parts of
        another architecture, believing otherwise.
        """
        named = unwrap(checkpoint)
        state = self.rename(strip_prefix(named, self.anchor))
        if not state:
            raise ValueError(f'expected a checkpoint with {self.name} weights (a tensor named {self.anchor}), '
                             f'got {_listed(tuple(named)) or "no tensors"}; give a checkpoint of the same architecture')
        fitted, report = fit(state, target, optional=optional)
        if report.missing:
            lacking = [_mismatch(name, state, target) for name in report.missing]
            raise ValueError(f'expected all {len(report.loaded) + len(lacking)} tensors, got {len(report.loaded)}; '
                             f'lacking {_listed(lacking)}; check that {self.settings} with the file')
        foreign = [name for name in report.left if _is_foreign(name, target, depth)]
        if foreign:
            raise ValueError(f'expected the blocks of this architecture, got also {_listed(foreign)}; check that '
                             f'{self.settings} with the file')
        return fitted, report


PIT = Family('PiT', 'patch_embed.conv.weight', 'arch and distilled agree', timm_to_official)
DEEPVIT = Family('DeepViT or ViT', 'patch_embed.proj.weight', 'arch agrees')  # and DeiT, which has the names of timm


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dicts of one module, summed in float64; of counters, which are whole numbers, the last one's.

    Raises ValueError where the names or the shapes of their tensors differ.
    """
    first, *others = states
    for other in others:
        strange = [name for name in {**first, **other} if name not in first or name not in other
                   or first[name].shape != other[name].shape]
        if strange:
            raise ValueError(f'expected checkpoints of one model, got some that differ in {_listed(strange)}; average '
                             'those of one run')
    return {name: _mean([state[name] for state in states]) for name in first}


def _mean(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[-1]
    return (sum(value.double() for value in values) / len(values)).to(values[0].dtype)


def at_size(state: Mapping[str, Tensor], pos_embed: Tensor) -> dict[str, Tensor]:
    """`state` with its `pos_embed` resampled to the grid of the given one, where that can be done."""
    fitted, _ = fit({name: state[name] for name in ('pos_embed',) if name in state}, {'pos_embed': pos_embed})
    return {**state, **fitted}


def _is_foreign(name: str, target: Mapping[str, Tensor], depth: int | None) -> bool:
    """Whether a tensor that was left in the file belongs to a block that `target` has, or that its arch has not."""
    number = re.match(r'blocks\.(\d+)\.', name)
    if not number:
        return False
    built = any(other.startswith(number[0]) for other in target)
    return built or (depth is not None and int(number[1]) >= depth)


def _adapt(name: str, value: Tensor, wanted: Tensor) -> Tensor | None:
    if name == 'pos_embed' and value.ndim == wanted.ndim == 4 and value.shape[:2] == wanted.shape[:2]:
        return resize_grid(value, tuple(wanted.shape[-2:]))
    if name == 'pos_embed' and value.ndim == wanted.ndim == 3 and value.shape[::2] == wanted.shape[::2]:
        return _resize_tokens(value, wanted.shape[1])
    if name == 'cls_token' and value[:, :1].shape == wanted.shape:
        return value[:, :1]
    return None


def _resize_tokens(embedding: Tensor, count: int) -> Tensor | None:
    """(1, 1 + n^2, D), the class token first -> (1, count, D); None unless `count` - 1 and n^2 are squares."""
    side, wanted = math.isqrt(embedding.shape[1] - 1), math.isqrt(count - 1)
    if side ** 2 != embedding.shape[1] - 1 or wanted ** 2 != count - 1:
        return None
    grid = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = resize_grid(grid, (wanted, wanted)).flatten(2).transpose(1, 2)
    return torch.cat((embedding[:, :1], resized), dim=1)


def _mismatch(name: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    if name not in state:
        return name
    return f'{name} ({_shape(state[name])} in the file, {_shape(target[name])} in the model)'


def _shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _listed(names: Collection[str], most: int = 6) -> str:
    shown = ', '.join(list(names)[:most])
    return f'{shown} and {len(names) - most} more' if len(names) > most else shown
