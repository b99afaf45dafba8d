"""Attention analysis of classifiers: models with and without a head, and figures of their attention."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from pit_downstream.attention.trace import trace_attention
from pit_downstream.backbones.weights import fit, rename_timm_pools, strip_prefix
from pit_downstream.benchmarks.attention import KINDS, get_records
from pit_downstream.datasets.base import Samples
from pit_downstream.evaluation import attention_figures as figures
from pit_downstream.evaluation.classifier import ClassifierPredictor
from pit_downstream.evaluation.models import (
    WEIGHTS,
    LoadedModel,
    as_predictor,
    build_classifier,
    build_module,
    config_preparation,
    read_weights,
)
from pit_downstream.results.results import Results
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

HEADS = ('norm.', 'fc_norm.', 'head', 'pre_logits.')  # after the last block, without attention maps or tokens
TRUNK = ('patch_embed.', 'pos_embed', 'cls_token', 'blocks.', 'transformers.', 'pools.')
STEMS = ('patch_embed.proj.weight', 'patch_embed.conv.weight')  # of ViT and DeepViT; of PiT
NUM_IMAGES = 4  # in the figures of attention maps
NUM_LAYERS = 6


def build_model(name: str, weights: str | None = None, **options: Any) -> ClassifierPredictor:
    """Build a classifier with models.build_classifier, also from a checkpoint of a detector's backbone.

    The number of classes follows the checkpoint file of a PiT, DeepViT or ViT. A backbone has no classes. `options` are
    those of build_classifier.
    """
    spec = Spec.parse(name)
    if weights in (None, *WEIGHTS) or ':' in spec.name:
        return build_classifier(name, weights=weights, **options)
    state = _read_transformer(weights)
    if 'head.weight' not in state:
        return _build_headless(spec, state, weights, **options)
    spec = Spec.of(spec.name, **{'num_classes': len(state['head.weight']), **dict(spec.kwargs)})
    return build_classifier(str(spec), weights=weights, **options)


def draw_attention(results: Sequence[Results], predictors: Sequence[ClassifierPredictor], samples: Sequence[Samples],
                   folder: Path) -> list[Path]:
    """Draw the similarity of blocks and the profiles of several models in one figure, and the maps of each on images.

    Args:
        results: Results of the benchmark `attention`, one per model.
        predictors, samples: The models, and the images as each of them prepares them.

    Returns:
        The paths of the figures.
    """
    caption = results[0].table.dataset
    values = {one.model: get_values(one) for one in results}
    files = [folder / 'similarity.png', folder / 'profile.png']
    figures.draw_similarity(values, files[0], caption=caption)
    figures.draw_profile(values, files[1], caption=caption)
    for predictor, images in zip(predictors, samples, strict=True):
        shown, attention = trace_images(predictor, images)
        for kind, maps in attention.items():
            chosen = {layer: maps[layer] for layer in figures.select_evenly(list(maps), NUM_LAYERS)}
            files.append(folder / f'attention_{re.sub(r"[^0-9A-Za-z]+", "_", predictor.name).strip("_")}_{kind}.png')
            figures.draw_overlays(shown, chosen, files[-1], caption=f'{predictor.name}, {KINDS[kind]}')
    return files


def get_values(results: Results) -> dict[str, float]:
    """Return the numbers of clean images by 'metric@layer'."""
    return {name: record.value for name, record in get_records(results.table).items()}


def trace_images(predictor: ClassifierPredictor, samples: Samples) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Return the first images, (n, 3, H, W) in [0, 1], and their attention (n, h, w) to patches by kind and layer."""
    batch = predictor.collate([samples[index] for index in range(min(NUM_IMAGES, len(samples)))])
    trace = predictor.predict(batch.images, batch, trace=True).trace
    return batch.images.cpu(), {kind: {layer: figures.compute_patch_attention(one, trace.grids[layer]).cpu()
                                       for layer, one in maps.items()} for kind, maps in trace.maps.items()}


def check_traceable(predictor: ClassifierPredictor) -> None:
    """Raise InputError for a model whose attention cannot be traced."""
    with trace_attention(predictor.model):
        pass


def _build_headless(spec: Spec, state: Mapping[str, Tensor], path: str, *, seed: int = 0,
                    img_size: int | None = None, **options: Any) -> ClassifierPredictor:
    """Build a model without a head from backbone weights. `seed` draws tensors that the backbone lacks, all unused."""
    kwargs: dict[str, Any] = {**dict(spec.kwargs), 'num_classes': 0, **({'img_size': img_size} if img_size else {})}
    if spec.name.partition('.')[0] not in timm.list_models():
        raise InputError(f'no model named {spec.name!r}. Choose a PiT, DeepViT or ViT for the weights in {path}.')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = build_module(spec, lambda: timm.create_model(spec.name, **kwargs))
    if hasattr(model, 'pools'):  # our PiT; timm's keeps its pools elsewhere
        state = rename_timm_pools(state)
    target = model.state_dict()
    fitted, report = fit(state, target, optional=[key for key in target if key.startswith(HEADS)])
    if report.missing or any(key.startswith(TRUNK) for key in report.left):
        raise InputError(f'expected the weights of {spec.name} in {path}, got others: {report}')
    model.load_state_dict(fitted, strict=False)
    spec = Spec.of(spec.name, **kwargs)
    named = LoadedModel(model, config_preparation(model.pretrained_cfg, spec, img_size), spec, Path(path).name)
    return as_predictor(named, img_size=img_size, **options)


def _read_transformer(path: str) -> dict[str, Tensor]:
    """Return the tensors of a transformer, classifier or backbone, under the names in the classifier."""
    state = read_weights(path)
    for stem in STEMS:
        named = strip_prefix(state, stem)
        if 'pos_embed' in named:
            return named
    raise InputError(f'expected the weights of a transformer with patches in {path}, found no {STEMS[0]}')
