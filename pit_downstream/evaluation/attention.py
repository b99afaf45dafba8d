"""Attention analysis of classifiers on a folder of images: numbers, their records, and figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from tqdm import tqdm

import pit_downstream.backbones  # noqa: F401  registers our models with timm

from ..attention import figures
from ..attention.trace import Trace, trace_attention
from ..backbones.weights import fit, strip_prefix, timm_to_official
from ..core.condition import CLEAN
from ..core.records import Record, ResultStore, to_records
from ..core.spec import Spec
from ..datasets.base import upright
from ..datasets.imagenet import folder_text
from ..datasets.shapes import write_shapes
from ..metrics.attention import AttentionCollapse
from .models import download, read_weights

SUFFIXES = {'.jpeg', '.jpg', '.png', '.bmp', '.webp'}
HEADS = ('norm.', 'fc_norm.', 'head', 'pre_logits.')  # after the last block: no map and no token there
TRUNK = ('patch_embed.', 'pos_embed', 'cls_token', 'blocks.', 'transformers.', 'pools.')
STEMS = ('patch_embed.proj.weight', 'patch_embed.conv.weight')  # of ViT and DeepViT; of PiT


@dataclass(frozen=True)
class Analysis:
    """What one model showed. values: 'metric@place' -> mean over `count` images (see AttentionCollapse).

    images: the first ones, (n, 3, H, W) in [0, 1]; attention: kind -> place -> (n, h, w), what was looked at there.
    """

    values: dict[str, float]
    count: int
    images: Tensor
    attention: dict[str, dict[str, Tensor]]


def bundled_images() -> Path:
    """The folder of the bundled data set's validation objects, drawn on first use."""
    return write_shapes('data/shapes') / 'classification/val'


def list_images(folder: str | Path, *, limit: int | None = None, apart_from: Path | None = None) -> list[Path]:
    """Image files anywhere under `folder`, sorted; with a limit as many of them, evenly spread over the list.

    apart_from: a folder whose images are not wanted, such as the one that figures are written to.
    """
    paths = sorted(path for path in Path(folder).rglob('*') if path.suffix.lower() in SUFFIXES
                   and (apart_from is None or apart_from.resolve() not in path.resolve().parents))
    if not paths:
        raise ValueError(f'expected images under {folder}, found none; name a folder that holds some')
    if limit is not None and limit < 1:
        raise ValueError(f'limit is a positive number of images, got {limit}')
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def build_model(name: str, weights: str | None = None, *, img_size: int | None = None, seed: int = 0) -> nn.Module:
    """A model that timm knows, by a Spec: 'pit_s', 'pit_ti(img_size=64)'.

    weights: a file, which knows the number of classes; 'timm' for what timm publishes; None for random ones.
    img_size: side of the images it will be given. PiT and DeepViT take any with weights of every size; timm's ViTs
    only with weights of that size. Raises ValueError where the weights do not fit, LookupError for an unknown name.
    """
    return _build(name, weights, img_size=img_size, seed=seed)[0]


def analyse(model: nn.Module, paths: Sequence[Path], *, img_size: int | None = None, batch_size: int = 8,
            device: str | torch.device = 'cpu', threshold: float = 0.9, samples: int = 4) -> Analysis:
    """Trace `model` on the images at `paths`, prepared as its own timm config says; the first `samples` are kept."""
    if batch_size < 1 or samples < 1:
        raise ValueError(f'batch size and samples are positive, got {batch_size} and {samples}')
    config = resolve_model_data_config(model)
    if img_size:
        config['input_size'] = (3, img_size, img_size)
    transform = create_transform(**config, is_training=False)
    metric, shown = AttentionCollapse(threshold=threshold), []
    batches = [paths[start:start + batch_size] for start in range(0, len(paths), batch_size)]
    with torch.inference_mode(), trace_attention(model.to(device).eval()) as trace:
        for batch in tqdm(batches, desc=type(model).__name__, unit='batch', disable=None):  # silent if not a terminal
            images = torch.stack([transform(read_image(path)) for path in batch]).to(device)
            model(images)
            metric.update(SimpleNamespace(trace=trace))
            if len(shown) * batch_size < samples:
                shown.append((_in_colour(images, config), _looked_at(trace)))
    images = torch.cat([images for images, _ in shown])[:samples]
    return Analysis(metric.compute(), metric.count, images, _joined([looked for _, looked in shown], samples))


def analyse_models(chosen: Sequence[tuple[str, str | None]], paths: Sequence[Path], *, seed: int = 0,
                   img_size: int | None = None, **how: Any) -> dict[str, Analysis]:
    """`analyse` every (name, weights) of `chosen`; the analyses are named as in records. how: as of `analyse`."""
    models: dict[str, nn.Module] = {}
    for name, weights in chosen:
        model, text = _build(name, weights, img_size=img_size, seed=seed)
        if text in models:
            raise ValueError(f'expected different models to compare, got {text} twice; give other weights')
        with trace_attention(model):
            models[text] = model  # whatever cannot be built or traced is refused before the work on the first
    return {text: analyse(model, paths, img_size=Spec.parse(text).get('img_size'), **how)
            for text, model in models.items()}


def chosen_models(model: str, weights: str | None, compare: str | None, compare_weights: str | None
                  ) -> list[tuple[str, str | None]]:
    """(name, weights) of one model or of two."""
    if compare_weights and not compare:
        raise ValueError('expected --compare MODEL with --compare-weights, got no second model; name it')
    return [(model, weights), (compare, compare_weights)] if compare else [(model, weights)]


def read_image(path: Path) -> Image.Image:
    try:
        return upright(Image.open(path)).convert('RGB')
    except OSError as error:
        raise ValueError(f'expected an image at {path}, could not read it: {error}') from None


def dataset_text(folder: Path, *, limit: int | None = None) -> str:
    """What a record calls the images of `list_images`."""
    return folder_text(folder, **({'limit': limit} if limit else {}))


def records(analysis: Analysis, *, model: str, dataset: str, seed: int = 0) -> list[Record]:
    """One for every number."""
    return to_records(analysis.values, model=model, dataset=dataset, condition=CLEAN, count=analysis.count, seed=seed)


def write_analyses(analyses: Mapping[str, Analysis], out: Path, *, dataset: str, seed: int = 0) -> list[Path]:
    """Add to results.jsonl what it has not got yet, draw all models by the names of the mapping; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    files = [out / 'results.jsonl', out / 'similarity.png', out / 'profile.png']
    store = ResultStore(files[0])
    for model, analysis in analyses.items():
        known = store.table(model, dataset, seed=seed)
        before = {record.count for record in known.records} - {analysis.count}
        if before:
            raise ValueError(f'{store.path} holds {model} on {before.pop()} images of {dataset}, got {analysis.count}; '
                             'choose another folder for the results')
        store.add(*(record for record in records(analysis, model=model, dataset=dataset, seed=seed)
                    if record.key not in known))
    values = {model: analysis.values for model, analysis in analyses.items()}
    figures.draw_similarity(values, files[1], caption=dataset)
    figures.draw_profile(values, files[2], caption=dataset)
    for model, analysis in analyses.items():
        for kind, attention in analysis.attention.items():
            chosen = {place: attention[place] for place in figures.spread(list(attention), 6)}
            files.append(out / f'attention_{re.sub(r"[^0-9A-Za-z]+", "_", model).strip("_")}_{kind}.png')
            figures.draw_overlays(analysis.images, chosen, files[-1], caption=f'{model}, {figures.KINDS[kind]}')
    return files


def summary(model: str, analysis: Analysis) -> str:
    """One line: how many blocks of each kind and stage are similar."""
    counts = [f'{metric.partition("_")[0]} {place + " " if place else ""}{value:.0f}'
              for metric, place, value in ((*name.split('@'), value) for name, value in analysis.values.items())
              if '_similar_blocks(' in metric]
    threshold = next(name for name in analysis.values if '_similar_blocks(' in name).split('(')[1].split(')')[0]
    return f'{model}, {analysis.count} images: similar blocks ({threshold}): {", ".join(counts)}'


def _build(text: str, weights: str | None, *, img_size: int | None, seed: int) -> tuple[nn.Module, str]:
    """The model, and what records call it: "deepvit_s(weights='w.pth@0123abcd')", or "deepvit_s(seed=0)" if random."""
    spec = Spec.parse(text)
    if img_size:
        spec = Spec.of(spec.name, **{**dict(spec.kwargs), 'img_size': img_size})
    if spec.name not in timm.list_models():
        near = get_close_matches(spec.name, timm.list_models()) or ['pit_s', 'deepvit_s', 'vit_s']
        raise LookupError(f'no model named {spec.name!r}; did you mean {", ".join(near)}?')
    kwargs = dict(spec.kwargs)
    if weights == 'timm':
        model = download(spec.name, lambda: timm.create_model(spec.name, pretrained=True, **kwargs))
        origin = {'weights': 'timm'}
    elif weights:
        state, label = _read_weights(Path(weights))
        model, origin = _with_weights(spec, state, weights), {'weights': label}
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, origin = timm.create_model(spec.name, **kwargs), {'seed': seed}
    return model, str(Spec.of(spec.name, **kwargs, **origin))


def _with_weights(spec: Spec, state: Mapping[str, Tensor], path: str) -> nn.Module:
    """Built for images of its `img_size` only where the stored position embedding is; the head may be lacking."""
    kwargs = {**dict(spec.kwargs), 'num_classes': len(state['head.weight']) if 'head.weight' in state else 0}
    model = timm.create_model(spec.name, **{key: value for key, value in kwargs.items() if key != 'img_size'})
    if 'img_size' in kwargs and model.pos_embed.shape != state['pos_embed'].shape:
        model = timm.create_model(spec.name, **kwargs)
    if hasattr(model, 'pools'):  # our PiT; timm's has its pools elsewhere
        state = timm_to_official(state)
    target = model.state_dict()
    fitted, report = fit(state, target, optional=[key for key in target if key.startswith(HEADS)])
    if report.missing or any(key.startswith(TRUNK) for key in report.left):
        raise ValueError(f'expected the weights of {spec.name} in {path}, got others: {report}')
    model.load_state_dict(fitted, strict=False)
    return model


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a transformer, classifier or backbone, and what records call the file."""
    state, label = read_weights(path)
    for stem in STEMS:
        named = strip_prefix(state, stem)
        if 'pos_embed' in named:
            return named, label
    raise ValueError(f'expected the weights of a transformer with patches in {path}, found no {STEMS[0]}')


def _in_colour(images: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Network images back to [0, 1]."""
    mean, std = (images.new_tensor(config[name])[:, None, None] for name in ('mean', 'std'))
    return (images * std + mean).clamp(0, 1).cpu()


def _looked_at(trace: Trace) -> dict[str, dict[str, Tensor]]:
    return {kind: {place: figures.attention_over_patches(one, trace.grids[place]).cpu() for place, one in maps.items()}
            for kind, maps in trace.maps.items()}


def _joined(looked: Sequence[Mapping[str, Mapping[str, Tensor]]], samples: int) -> dict[str, dict[str, Tensor]]:
    return {kind: {place: torch.cat([one[kind][place] for one in looked])[:samples] for place in looked[0][kind]}
            for kind in looked[0]}
