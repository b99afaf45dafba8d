"""Attention analysis of classifiers on a folder of images: values, records and figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor
from tqdm import tqdm

from pit_downstream.attention import figures
from pit_downstream.attention.trace import Trace, trace_attention
from pit_downstream.backbones.weights import fit, strip_prefix, rename_timm_pools
from pit_downstream.results.condition import CLEAN
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Sample
from pit_downstream.utils.digests import hash_files, hash_text
from pit_downstream.results.records import Record, ResultStore, get_model_key, make_records
from pit_downstream.utils.spec import Spec
from pit_downstream.datasets.base import load_image
from pit_downstream.datasets.imagenet import make_folder_name
from pit_downstream.datasets.shapes import ROOT, write_shapes
from pit_downstream.metrics.attention import AttentionCollapse
from pit_downstream.evaluation.classifier import ClassifierPredictor, Preparation
from pit_downstream.evaluation.models import (
    WEIGHTS,
    LoadedModel,
    as_predictor,
    build_classifier,
    config_preparation,
    build_module,
    read_weights,
)

SUFFIXES = {'.jpeg', '.jpg', '.png', '.bmp', '.webp'}
HEADS = ('norm.', 'fc_norm.', 'head', 'pre_logits.')  # after the last block, without attention maps or tokens
TRUNK = ('patch_embed.', 'pos_embed', 'cls_token', 'blocks.', 'transformers.', 'pools.')
STEMS = ('patch_embed.proj.weight', 'patch_embed.conv.weight')  # of ViT and DeepViT; of PiT


@dataclass(frozen=True)
class Analysis:
    """Attention analysis of one model.

    Attributes:
        values: 'metric@place' -> mean over `count` images (see AttentionCollapse).
        images: The first images, (n, 3, H, W) in [0, 1].
        attention: kind -> place -> attention over image patches, (n, h, w).
        preparation: Preprocessing of the images.
    """

    values: dict[str, float]
    count: int
    images: Tensor
    attention: dict[str, dict[str, Tensor]]
    preparation: Preparation


def bundled_images() -> Path:
    """Return the folder of the bundled dataset's validation objects, created on first use."""
    return write_shapes(ROOT) / 'classification/val'


def list_images(folder: str | Path, *, limit: int | None = None, apart_from: Path | None = None) -> list[Path]:
    """Return the image files under `folder`, recursively and sorted.

    With `limit`, return that many of them, evenly spread over the list. `apart_from` is a folder to exclude, such as
    the output folder of figures.
    """
    paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES
                   and (apart_from is None or apart_from.resolve() not in path.resolve().parents))
    if not paths:
        raise InputError(f'expected images under {folder}, found none; name a folder that holds some')
    if limit is not None and limit < 1:
        raise InputError(f'limit is a positive number of images, got {limit}')
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


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


def analyse(predictor: ClassifierPredictor, paths: Sequence[Path], *, batch_size: int = 8, threshold: float = 0.9,
            samples: int = 4) -> Analysis:
    """Trace a classifier on the images at `paths` in the model's preprocessing. Keep the first `samples` images.

    Raises UnreadableImage for a missing or damaged file.
    """
    if batch_size < 1 or samples < 1:
        raise InputError(f'batch size and samples are positive, got {batch_size} and {samples}')
    metric = AttentionCollapse(threshold=threshold)
    shown: list[tuple[Tensor, dict[str, dict[str, Tensor]]]] = []
    batches = [paths[start:start + batch_size] for start in range(0, len(paths), batch_size)]
    for batch in tqdm(batches, desc=predictor.name, unit='batch', disable=None):  # no bar outside a terminal
        taken = predictor.collate([Sample(str(path), predictor.view(load_image(path)), 0) for path in batch])
        outputs = predictor.predict(taken.images, taken, trace=True)
        metric.update(outputs)
        if len(shown) * batch_size < samples:
            shown.append((taken.images.cpu(), _looked_at(outputs.trace)))
    images = torch.cat([images for images, _ in shown])[:samples]
    return Analysis(metric.compute(), metric.count, images, _joined([looked for _, looked in shown], samples),
                    predictor.preparation)


def analyze_models(chosen: Sequence[tuple[str, str | None]], paths: Sequence[Path], *, batch_size: int = 8,
                   threshold: float = 0.9, samples: int = 4, **options: Any) -> dict[str, Analysis]:
    """Apply `analyse` to every (name, weights) of `chosen`. Return the analyses by model name.

    `options` are those of build_model.
    """
    models: dict[str, ClassifierPredictor] = {}
    for name, weights in chosen:
        predictor = build_model(name, weights, **options)
        if get_model_key(predictor.name) in map(get_model_key, models):
            raise InputError(f'expected different models to compare, got {predictor.name} twice; give other weights')
        with trace_attention(predictor.model):
            models[predictor.name] = predictor  # fail before any work if a model cannot be built or traced
    return {name: analyse(predictor, paths, batch_size=batch_size, threshold=threshold, samples=samples)
            for name, predictor in models.items()}


def chosen_models(model: str, weights: str | None, compare: str | None, compare_weights: str | None
                  ) -> list[tuple[str, str | None]]:
    """Return the (name, weights) pairs of one or two models."""
    if compare_weights and not compare:
        raise InputError('expected --compare MODEL with --compare-weights, got no second model; name it')
    return [(model, weights), (compare, compare_weights)] if compare else [(model, weights)]


def dataset_text(folder: Path, paths: Sequence[Path], *, limit: int | None = None) -> str:
    """Return the dataset name in records for the images of `list_images`, with a digest of names and content."""
    digests = zip(paths, hash_files(paths, unreadable='unreadable'), strict=True)
    files = hash_text(*(f'{path.relative_to(folder).as_posix()} {digest}' for path, digest in digests))
    return make_folder_name(folder, files=files, **({'limit': limit} if limit else {}))


def records(analysis: Analysis, *, model: str, dataset: str, seed: int = 0) -> list[Record]:
    """Return one record per value."""
    return make_records(analysis.values, model=model, dataset=dataset, condition=CLEAN, count=analysis.count, seed=seed)


def write_analyses(analyses: Mapping[str, Analysis], out: Path, *, dataset: str, seed: int = 0) -> list[Path]:
    """Add missing records to results.jsonl, draw all models, and return the paths of the files.

    `dataset` comes from `dataset_text`. Records add each model's view to it. The keys of the mapping label the figures.
    """
    out.mkdir(parents=True, exist_ok=True)
    files = [out / 'results.jsonl', out / 'similarity.png', out / 'profile.png']
    store = ResultStore(files[0])
    for model, analysis in analyses.items():
        spec = Spec.parse(dataset)
        viewed = str(Spec.of(spec.name, **{**dict(spec.kwargs), **analysis.preparation.view.words}))
        known = store.table(model, viewed, seed=seed)
        before = {record.count for record in known.records} - {analysis.count}
        if before:
            raise InputError(f'{store.path} holds {model} on {before.pop()} images of {viewed}, got {analysis.count}; '
                             'choose another folder for the results')
        store.add(*(record for record in records(analysis, model=model, dataset=viewed, seed=seed)
                    if record.key not in known))
    values = {model: analysis.values for model, analysis in analyses.items()}
    figures.draw_similarity(values, files[1], caption=dataset)
    figures.draw_profile(values, files[2], caption=dataset)
    for model, analysis in analyses.items():
        for kind, attention in analysis.attention.items():
            chosen = {place: attention[place] for place in figures.select_evenly(list(attention), 6)}
            files.append(out / f'attention_{re.sub(r"[^0-9A-Za-z]+", "_", model).strip("_")}_{kind}.png')
            figures.draw_overlays(analysis.images, chosen, files[-1], caption=f'{model}, {figures.KINDS[kind]}')
    return files


def summary(model: str, analysis: Analysis) -> str:
    """Return one line with the number of similar blocks per kind and stage."""
    counts = []
    for name, value in analysis.values.items():
        metric, place = name.split('@')
        if '_similar_blocks(' in metric:
            counts.append(f'{metric.partition("_")[0]} {place + " " if place else ""}{value:.0f}')
    threshold = next(name for name in analysis.values if '_similar_blocks(' in name).split('(')[1].split(')')[0]
    return f'{model}, {analysis.count} images: similar blocks ({threshold}): {", ".join(counts)}'


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


def _looked_at(trace: Trace) -> dict[str, dict[str, Tensor]]:
    return {kind: {place: figures.compute_patch_attention(one, trace.grids[place]).cpu() for place, one in maps.items()}
            for kind, maps in trace.maps.items()}


def _joined(looked: Sequence[Mapping[str, Mapping[str, Tensor]]], samples: int) -> dict[str, dict[str, Tensor]]:
    return {kind: {place: torch.cat([one[kind][place] for one in looked])[:samples] for place in looked[0][kind]}
            for kind in looked[0]}
