"""Class names of a classifier, in output order."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

ATTRIBUTE = 'class_names'  # of the state dict in weights.pth, which any tool can read as a plain state dict


def class_names(model: nn.Module, weights: str | Path | None = None) -> tuple[str, ...] | None:
    """Return the class names of a checkpoint or of `model.pretrained_cfg['label_names']`, None without either.

    `weights` is a file written by torch.save. Nothing in it is executed.
    """
    if weights is not None and Path(weights).is_file():
        if names := _saved_names(weights):
            return names
    config = getattr(model, 'pretrained_cfg', None)
    return _as_names(config.get('label_names')) if isinstance(config, Mapping) else None


def _saved_names(path: str | Path) -> tuple[str, ...] | None:
    """Read names from weights.pth (an attribute), {'classes': [...]} or an mmengine checkpoint (`meta`)."""
    try:
        checkpoint = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, LookupError, EOFError, TypeError, AttributeError):
        return None  # safetensors, or a file that read_weights rejects
    if not isinstance(checkpoint, Mapping):
        return None
    meta = checkpoint.get('meta')
    dataset = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    found = [getattr(checkpoint, ATTRIBUTE, None), *(checkpoint.get(key) for key in (ATTRIBUTE, 'classes')),
             *(dataset.get(key) for key in ('classes', 'CLASSES') if isinstance(dataset, Mapping))]
    return next((names for names in map(_as_names, found) if names), None)


def _as_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
