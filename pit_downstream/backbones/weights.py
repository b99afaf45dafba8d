"""Checkpoints of any origin -> the state dict of one of our modules, with a report. Pure functions on dicts."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from .layers import resize_grid

WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')  # timm, DeiT, mmengine and DDP training scripts


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


def unwrap(checkpoint: Mapping) -> dict[str, Tensor]:
    """The parameters of a training checkpoint: averaged (EMA) weights first, tensors only."""
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            return unwrap(checkpoint[wrapper])
    return {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}


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

    Two things are adapted: `pos_embed` (1, D, h, w) is resampled to the module's grid, and of the two tokens of a
    distilled `cls_token` a module with one takes the first. Any other difference in shape counts as missing.
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


def convert_pit(checkpoint: Mapping, target: Mapping[str, Tensor], *, optional: Collection[str] = ()
                ) -> tuple[dict[str, Tensor], WeightsReport]:
    """Convert any PiT checkpoint (official, timm, DDP, EMA, detector) to the names and shapes of `target`.

    Raises ValueError when a tensor of `target` that is not `optional` cannot be had: nobody should train from noise
    believing otherwise.
    """
    named = unwrap(checkpoint)
    state = timm_to_official(strip_prefix(named, 'patch_embed.conv.weight'))
    if not state:
        raise ValueError('expected a checkpoint with PiT weights (a tensor named patch_embed.conv.weight), '
                         f'got {_listed(tuple(named)) or "no tensors"}; give a checkpoint of the same architecture')
    fitted, report = fit(state, target, optional=optional)
    if report.missing:
        lacking = [_mismatch(name, state, target) for name in report.missing]
        raise ValueError(f'expected all {len(report.loaded) + len(lacking)} tensors, got {len(report.loaded)}; '
                         f'lacking {_listed(lacking)}; check that arch and distilled agree with the file')
    return fitted, report


def _adapt(name: str, value: Tensor, wanted: Tensor) -> Tensor | None:
    same_width = value.ndim == wanted.ndim and value.shape[:2] == wanted.shape[:2]
    if name == 'pos_embed' and value.ndim == 4 and same_width:
        return resize_grid(value, tuple(wanted.shape[-2:]))
    if name == 'cls_token' and value[:, :1].shape == wanted.shape:
        return value[:, :1]
    return None


def _mismatch(name: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    if name not in state:
        return name
    return f'{name} ({_shape(state[name])} in the file, {_shape(target[name])} in the model)'


def _shape(tensor: Tensor) -> str:
    return 'x'.join(map(str, tensor.shape))


def _listed(names: Collection[str], most: int = 6) -> str:
    shown = ', '.join(list(names)[:most])
    return f'{shown} and {len(names) - most} more' if len(names) > most else shown
