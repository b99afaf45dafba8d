"""Every classifier in configs/: short, documented, buildable, and with the numbers of its authors' recipe.

DeiT's are those of facebookresearch/deit, main.py; DeepViT's of zhoudaquan/dvit_repo, scripts/*.yaml; PiT differs from
DeiT as its authors say in naver-ai/pit, issues 2 and 3.
"""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, HOOKS, METRICS, OPTIMIZERS

from pit_downstream.training.image_classifier import ImageClassifier
from pit_downstream.training.runs import build_preparation

ROOT = Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path.name for path in ROOT.glob('*.py') if 'tools/train_classifier.py' in path.read_text())
IMAGENET = [name for name in CONFIGS if name.startswith('imagenet_')]
PARAMETERS = {  # as in the backbones' own tests: the official models' counts
    'imagenet_pit_s.py': 23_461_912, 'imagenet_pit_b.py': 73_764_840, 'imagenet_vit_s.py': 22_050_664,
    'imagenet_deepvit_s.py': 27_312_632, 'imagenet_deepvit_24.py': 36_261_448, 'imagenet_deepvit_32.py': 48_096_232}


def read(name):
    return Config.fromfile(ROOT / name)


@pytest.mark.parametrize('name', CONFIGS)
def test_is_short_and_documented(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 30
    assert f'python tools/train_classifier.py configs/{name}' in '\n'.join(lines[:6])


@pytest.mark.parametrize('name', CONFIGS)
def test_builds_without_allocation_and_has_its_preprocessing(name):
    cfg = read(name)
    with torch.device('meta'):
        model = ImageClassifier(cfg.model.network, regularizer=cfg.model.get('regularizer'))
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    view = build_preparation(cfg.model.network).view
    assert view.size == (224 if name in IMAGENET else 64) and view.interpolation == 'bicubic'
    hooks = [(HOOKS, hook) for hook in cfg.custom_hooks]
    for registry, part in ((OPTIMIZERS, cfg.optim_wrapper.optimizer), (METRICS, cfg.val_evaluator),
                           (DATA_SAMPLERS, cfg.train_dataloader.sampler), *hooks):
        assert registry.get(part.type) is not None


@pytest.mark.parametrize('name', IMAGENET)
def test_what_all_recipes_share(name):
    cfg = read(name)
    optimizer, (warm_up, cosine), ema = cfg.optim_wrapper.optimizer, cfg.param_scheduler, cfg.custom_hooks[0]
    assert (optimizer.lr, optimizer.weight_decay) == (5e-4, 0.05) and 'clip_grad' not in cfg.optim_wrapper
    assert optimizer.lr * warm_up.start_factor == pytest.approx(1e-6)
    assert (cosine.begin, cosine.end, cosine.eta_min) == (warm_up.end, 300, 1e-5)
    assert ema.type == 'EMAHook' and 1 - ema.momentum == pytest.approx(0.99996, abs=1e-9) and ema.update_buffers
    assert cfg.train_dataloader.dataset.transform.auto_augment == 'rand-m9-mstd0.5-inc1'
    assert cfg.train_dataloader.dataset.transform.color_jitter == 0.4
    preprocessor = cfg.model.data_preprocessor
    assert preprocessor.smoothing == 0.1 and preprocessor.mixing.switch_prob == 0.5 and preprocessor.mixing.prob == 1
    assert preprocessor.erasing == dict(probability=0.25, mode='pixel', max_count=1)


ROWS = {  # optimizer, batch, warm-up, epochs, drop path, repeats, mixup, cutmix, regularizer, batch of the rate, seed
    'imagenet_pit_s.py': ('AdamP', 64, 5, 300, 0.1, 1, 0.8, 1.0, None, 512, 0),
    'imagenet_pit_b.py': ('AdamP', 64, 10, 300, 0.1, 3, 0.8, 1.0, None, 512, 0),
    'imagenet_vit_s.py': ('AdamW', 64, 5, 300, 0.1, 3, 0.8, 1.0, None, 512, 0),
    'imagenet_deepvit_s.py': ('AdamW', 32, 5, 310, 0.2, 1, 0.8, 1.0, None, None, 42),
    'imagenet_deepvit_24.py': ('AdamW', 32, 5, 310, 0.2, 1, 0.8, 1.0, None, None, 42),
    'imagenet_deepvit_32.py': ('AdamW', 32, 5, 310, 0.2, 1, 0.1, 0.0, dict(pairs=12, weight=0.1), None, 42)}


@pytest.mark.parametrize('name', IMAGENET)
def test_what_each_recipe_has_of_its_own(name):
    cfg = read(name)
    mixing = cfg.model.data_preprocessor.mixing
    assert ROWS[name] == (
        cfg.optim_wrapper.optimizer.type, cfg.train_dataloader.batch_size, cfg.param_scheduler[0].end,
        cfg.train_cfg.max_epochs, cfg.model.network.drop_path_rate, cfg.train_dataloader.sampler.get('num_repeats', 1),
        mixing.mixup_alpha, mixing.cutmix_alpha, cfg.model.get('regularizer'),
        cfg.auto_scale_lr.get('base_batch_size'), cfg.randomness.seed)
