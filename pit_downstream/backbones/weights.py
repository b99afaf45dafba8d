"""Conversion of any checkpoint to the state dict of a module, with a report. Pure functions on dicts."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pit_downstream.utils.checkpoints import extract_parameters
from pit_downstream.backbones.layers import resize_grid
from pit_downstream.utils.errors import InputError


@dataclass(frozen=True)
class WeightsReport:
    """Result of loading a checkpoint: loaded and missing tensors of the module, and unused tensors of the file.

    new: tensors of the module that are in no such checkpoint (e.g. output norms) and keep their values.
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
                text += f'; {label}: {_format_names(names)}'
        return text


def strip_prefix(state: Mapping[str, Tensor], anchor: str) -> dict[str, Tensor]:
    """Keep the tensors at the level of parameter `anchor` and drop their name prefix: 'module.', 'backbone.', ...

    Returns {} if no name ends in `anchor`. Of several candidates the outermost is used.
    """
    prefixes = [name[:-len(anchor)] for name in state if name == anchor or name.endswith('.' + anchor)]
    if not prefixes:
        return {}
    prefix = min(prefixes, key=len)
    return {name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)}


def rename_timm_pools(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's pool before stage i + 1 (`transformers.1.pool`) to the official name (`pools.0`)."""
    def rename(name: str) -> str:
        return re.sub(r'^transformers\.(\d+)\.pool\.', lambda match: f'pools.{int(match[1]) - 1}.', name)
    return {rename(name): value for name, value in state.items()}


def fit(state: Mapping[str, Tensor], target: Mapping[str, Tensor], *, optional: Collection[str] = ()
        ) -> tuple[dict[str, Tensor], WeightsReport]:
    """Select and adapt the tensors of `state` for `target` (a module's state dict).

    Two tensors are adapted. `pos_embed`, a grid (1, D, h, w) or a class token and a square (1, 1 + n^2, D), is
    resampled to the module's grid. Of the two tokens of a distilled `cls_token`, a module with one token uses the
    first. Any other difference in shape counts as missing.
    """
    fitted, adapted = {}, []
    for name, wanted in target.items():
        value = state.get(name)
        if value is None:
            continue
        if value.shape != wanted.shape:
            value = _fit_tensor(name, value, wanted)
            if value is None:
                continue
            adapted.append(f'{name} {_format_shape(state[name])} -> {_format_shape(wanted)}')
        fitted[name] = value
    missing = [name for name in target if name not in fitted]
    return fitted, WeightsReport(
        loaded=tuple(fitted), missing=tuple(name for name in missing if name not in optional),
        left=tuple(name for name in state if name not in fitted), adapted=tuple(adapted),
        new=tuple(name for name in missing if name in optional))


@dataclass(frozen=True)
class Family:
    """Checkpoints of one architecture. anchor: a tensor in each of them. settings: arguments that must match the file.

    rename: converts other parameter names to the official ones.
    """

    name: str
    anchor: str
    settings: str
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict

    def convert(self, checkpoint: Mapping, target: Mapping[str, Tensor], *, optional: Collection[str] = (),
                depth: int | None = None) -> tuple[dict[str, Tensor], WeightsReport]:
        """Convert any checkpoint (official, timm, DDP, EMA, detector) to the names and shapes of `target`.

        depth: number of `blocks` of the full architecture. `target` may have only the first ones.
        Raises InputError if a tensor of `target` that is not `optional` is missing, if the file has more blocks than
        `depth`, or if its blocks have tensors that those of the target do not have. This prevents training from random
        weights or from a different architecture unnoticed.
        """
        named = extract_parameters(checkpoint)
        state = self.rename(strip_prefix(named, self.anchor))
        if not state:
            raise InputError(f'expected a checkpoint with {self.name} weights (a tensor named {self.anchor}), '
                             f'got {_format_names(tuple(named)) or "no tensors"}; give a checkpoint of the same '
                             'architecture')
        fitted, report = fit(state, target, optional=optional)
        if report.missing:
            missing = [_describe_mismatch(name, state, target) for name in report.missing]
            raise InputError(f'expected all {len(report.loaded) + len(missing)} tensors, got {len(report.loaded)}; '
                             f'missing: {_format_names(missing)}; check that {self.settings} with the file')
        foreign = [name for name in report.left if _is_foreign(name, target, depth)]
        if foreign:
            raise InputError(f'expected the blocks of this architecture, got also {_format_names(foreign)}; check that '
                             f'{self.settings} with the file')
        return fitted, report


PIT = Family('PiT', 'patch_embed.conv.weight', 'arch and distilled agree', rename_timm_pools)
DEEPVIT = Family('DeepViT or ViT', 'patch_embed.proj.weight', 'arch agrees')  # also DeiT, which uses timm's names


def average(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average state dicts of one module in float64. For integer counters the last value is used.

    Raises InputError if the names or shapes of their tensors differ.
    """
    first, *others = states
    for other in others:
        unknown = [name for name in {**first, **other} if name not in first or name not in other
                   or first[name].shape != other[name].shape]
        if unknown:
            raise InputError(f'expected checkpoints of one model, got some that differ in {_format_names(unknown)}; '
                             'average those of one run')
    return {name: _average_tensors([state[name] for state in states]) for name in first}


def _average_tensors(values: Sequence[Tensor]) -> Tensor:
    if not values[0].is_floating_point():
        return values[-1]
    total = sum((value.double() for value in values), start=torch.zeros((), dtype=torch.float64))
    return (total / len(values)).to(values[0].dtype)


def fit_position_embedding(state: Mapping[str, Tensor], pos_embed: Tensor) -> dict[str, Tensor]:
    """Return `state` with `pos_embed` resampled to the grid of the given one, if possible."""
    fitted, _ = fit({name: state[name] for name in ('pos_embed',) if name in state}, {'pos_embed': pos_embed})
    return {**state, **fitted}


def _is_foreign(name: str, target: Mapping[str, Tensor], depth: int | None) -> bool:
    """Return whether an unused tensor belongs to a block that `target` has, or one beyond `depth`."""
    number = re.match(r'blocks\.(\d+)\.', name)
    if not number:
        return False
    built = any(other.startswith(number[0]) for other in target)
    return built or (depth is not None and int(number[1]) >= depth)


def _fit_tensor(name: str, value: Tensor, wanted: Tensor) -> Tensor | None:
    if name == 'pos_embed' and value.ndim == wanted.ndim == 4 and value.shape[:2] == wanted.shape[:2]:
        return resize_grid(value, (wanted.shape[2], wanted.shape[3]))
    if name == 'pos_embed' and value.ndim == wanted.ndim == 3 and value.shape[::2] == wanted.shape[::2]:
        return _resize_tokens(value, wanted.shape[1])
    if name == 'cls_token' and value[:, :1].shape == wanted.shape:
        return value[:, :1]
    return None


def _resize_tokens(embedding: Tensor, count: int) -> Tensor | None:
    """Resample (1, 1 + n^2, D), class token first, to (1, count, D), or None unless `count` - 1 and n^2 are squares."""
    side, wanted = math.isqrt(embedding.shape[1] - 1), math.isqrt(count - 1)
    if side ** 2 != embedding.shape[1] - 1 or wanted ** 2 != count - 1:
        return None
    grid = embedding[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = resize_grid(grid, (wanted, wanted)).flatten(2).transpose(1, 2)
    return torch.cat((embedding[:, :1], resized), dim=1)


def _describe_mismatch(name: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    if name not in state:
        return name
    return f'{name} ({_format_shape(state[name])} in the file, {_format_shape(target[name])} in the model)'


def _format_shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _format_names(names: Collection[str], most: int = 6) -> str:
    shown = ', '.join(list(names)[:most])
    return f'{shown} and {len(names) - most} more' if len(names) > most else shown
