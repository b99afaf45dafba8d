"""PiT and DeepViT backbones for mmdet, and evaluation of classifiers and detectors.

    import pit_downstream as pit
    results = pit.evaluate('pit_s', 'imagenet_c', data='data/imagenet/val', output_dir='work_dirs/pit_s')

The functions of `pit_downstream.api` are imported on first use. `pit_downstream.backbones` registers the models with
timm, `pit_downstream.det` with mmdet.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = '0.2.0'

if TYPE_CHECKING:
    from pit_downstream import benchmarks
    from pit_downstream.api import attack, classifier, compare, detector, evaluate, list_models

__all__ = ['__version__', 'attack', 'benchmarks', 'classifier', 'compare', 'detector', 'evaluate', 'list_models']


def __getattr__(name: str) -> Any:
    if name == 'benchmarks':
        return importlib.import_module('pit_downstream.benchmarks')
    if name in __all__:
        return getattr(importlib.import_module('pit_downstream.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
