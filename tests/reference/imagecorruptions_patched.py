"""imagecorruptions 1.1.2, patched for current versions of numpy, scipy and scikit-image, with seeded draws.

The module is executed from its installed file, unchanged, with its missing names replaced: `pkg_resources`
(gone from setuptools 82), `scipy.ndimage.interpolation`, `np.float_`, and scikit-image's `multichannel`. `np.random`
and the generator of scikit-image's random_noise become seeded ones, so `Replay` can repeat what they drew.
"""
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import scipy.ndimage
import skimage
import torch
from PIL import Image
from skimage.filters import gaussian

FOLDER = Path(importlib.util.find_spec('imagecorruptions').origin).parent


class _PatchedModule:
    """A module with some names replaced."""

    def __init__(self, module: types.ModuleType, **names):
        self.__dict__.update(names, _module=module)

    def __getattr__(self, name: str):
        return getattr(self._module, name)


def _load() -> types.ModuleType:
    missing = {
        'pkg_resources': types.SimpleNamespace(resource_filename=lambda package, name: str(FOLDER / name)),
        'scipy.ndimage.interpolation': types.SimpleNamespace(map_coordinates=scipy.ndimage.map_coordinates),
    }
    spec = importlib.util.spec_from_file_location('imagecorruptions_patched', FOLDER / 'corruptions.py')
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, missing):
        spec.loader.exec_module(module)
    module.gaussian = lambda *args, multichannel=False, **kwargs: gaussian(
        *args, channel_axis=-1 if multichannel else None, **kwargs)
    return module


REFERENCE = _load()


def reference(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """What imagecorruptions makes of an RGB image, uint8 (H, W, 3), as its `corrupt` does it, drawing from `seed`."""
    noise = partial(skimage.util.random_noise, rng=np.random.default_rng(seed))
    REFERENCE.sk = _PatchedModule(skimage, util=_PatchedModule(skimage.util, random_noise=noise))
    REFERENCE.np = _PatchedModule(np, float_=np.float64, random=np.random.RandomState(seed))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)
        return np.uint8(getattr(REFERENCE, name)(Image.fromarray(image), severity))


class Replay:
    """An `Rng` for one image that draws from numpy as the reference does: channels last, its kind of generator.

    Fields are float64: the parity tests ask for the mathematics, not for float32's rounding.
    """

    def __init__(self, name: str, seed: int):
        self.draws = np.random.RandomState(seed)
        self.random = np.random.default_rng(seed).random if name == 'impulse_noise' else self.draws.random_sample

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        return self._torch(self.draws.standard_normal(self._numpy(shape)), shape)

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        return self._torch(self.random(self._numpy(shape)), shape)

    def integers(self, low: int, high: int | torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        return self._torch(self.draws.randint(low, int(high), self._numpy(shape)), shape)

    def poisson(self, rate: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        rate = rate if index is None else rate[index.long()]
        channels_last = rate[0].permute(1, 2, 0).numpy()
        return self._torch(self.draws.poisson(channels_last).astype(np.float64), rate.shape)

    @staticmethod
    def _numpy(shape: Sequence[int]) -> tuple[int, ...]:
        """(1, 3, H, W) is drawn as (H, W, 3), everything else as it stands."""
        assert shape[0] == 1
        return (*shape[2:], shape[1]) if len(shape) == 4 and shape[1] == 3 else tuple(shape)

    @staticmethod
    def _torch(drawn: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
        drawn = torch.as_tensor(drawn)
        return drawn.permute(2, 0, 1)[None] if drawn.dim() == 3 and len(shape) == 4 else drawn.reshape(tuple(shape))
