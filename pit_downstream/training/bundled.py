"""Adapt any classifier's config to the bundled images, with a schedule for two CPU cores."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from pit_downstream.datasets.shapes import OBJECT_SIZE

ROOT = 'data/shapes'
EPOCHS, BATCH, LR, CLIP = 20, 32, 5e-4, 1.0


def use_bundled(cfg: Config, root: str = ROOT) -> None:
    """Rewrite `cfg` in place for the single-object images drawn by `write_shapes(root)`. Nothing is downloaded.

    Classes differ in outline, so mixing and erasing are disabled. The regularizer, distillation and averaging are kept,
    the latter over fewer steps.
    """
    cfg.load_from, cfg.resume = None, False
    cfg.model.network.update(img_size=OBJECT_SIZE, drop_path_rate=0.0)
    cfg.model.network.pop('pretrained', None)
    cfg.model.data_preprocessor.update(mixing=None, erasing=None)
    for loader, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        cfg[f'{loader}_dataloader'].update(batch_size=BATCH, num_workers=1)
        cfg[f'{loader}_dataloader'].dataset.root = str(Path(root, 'classification', split))
    cfg.train_dataloader.sampler = ConfigDict(type='DefaultSampler', shuffle=True)
    cfg.train_dataloader.dataset.transform = ConfigDict(
        scale=(0.6, 1.0), ratio=(0.8, 1.25), vflip=0.5, color_jitter=0.2, interpolation='bicubic')
    _fit_schedule(cfg)


def _fit_schedule(cfg: Config) -> None:
    cfg.optim_wrapper = ConfigDict(
        type='OptimWrapper', constructor='TimmGroupsConstructor',
        optimizer=dict(type='AdamW', lr=LR, weight_decay=0.05, fused=True), clip_grad=dict(max_norm=CLIP))
    cfg.train_cfg = ConfigDict(by_epoch=True, max_epochs=EPOCHS, val_interval=EPOCHS // 5)
    cfg.param_scheduler = [
        ConfigDict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
        ConfigDict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0)]
    cfg.auto_scale_lr = ConfigDict(enable=False, base_batch_size=BATCH)
    cfg.default_hooks.logger = ConfigDict(type='LoggerHook', interval=10)
    for hook in cfg.custom_hooks:
        if hook.type == 'EMAHook':
            hook.momentum = 0.02  # for 37 steps per epoch
