"""Cost of a detector and of its backbone, from a config alone."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from pit_downstream.evaluation.complexity import complexity
from pit_downstream.evaluation.model_cost import Facts, device_name, measured
from pit_downstream.det.predictor import RANDOM, build_detector
from pit_downstream.utils.errors import InputError

NOTE = 'second stages see what random weights propose; post-processing is timed, not counted'


def measure_detector(cfg: Config, shape: tuple[int, int], *, config: str, device: str | torch.device = 'cpu',
                     batch_size: int = 1, repeats: int = 5) -> Facts:
    """Measure the detector of `cfg` with random weights, for images of shape (height, width) before padding.

    config: its name in the result. Operations are counted in a real pass over noise, since the number of proposals of a
    two-stage detector depends on data. Raises InputError for image sizes that the detector does not support.
    """
    predictor = build_detector(cfg, RANDOM, config=Path(config).stem, device=device)
    model = predictor.model
    preprocess = cast(nn.Module, model.data_preprocessor)
    data = preprocess(make_noise_images(shape, 1), False)
    try:
        cost = complexity(model, lambda: model(**data, mode='tensor'), split=('backbone',))
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(f'expected images that {config} takes, got {shape[0]} x {shape[1]}: '
                         f'{(str(error) or type(error).__name__).splitlines()[0]}; give another --shape') from error
    height, width = data['inputs'].shape[-2:]

    def run_passes(count: int) -> Callable[[], list[DetDataSample]]:
        images = make_noise_images(shape, count)
        return lambda: model(**preprocess(images, False), mode='predict')
    facts = Facts(config, (height, width), cost, device_name(predictor.device), note=NOTE)
    return measured(facts, run_passes, batch_size, device=predictor.device, repeats=repeats)


def make_noise_images(shape: tuple[int, int], count: int) -> dict:
    """Return `count` images of noise in the format of mmdet's loaders."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator) for _ in range(count)]
    samples = [DetDataSample(metainfo={'img_id': number, 'img_shape': shape, 'ori_shape': shape,
                                       'scale_factor': (1.0, 1.0)}) for number in range(count)]
    return {'inputs': images, 'data_samples': samples}
