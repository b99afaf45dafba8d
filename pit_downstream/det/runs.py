"""A detector's run: from the tools' flags to a mmengine config, and what came of it in one line."""

import argparse
import importlib.util
import os
from pathlib import Path

import torch
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine import dist
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from ..datasets.shapes import write_shapes
from .bundled import ROOT, use_bundled
from .data import dicts_in, require_data, set_data_root, survive_broken_images
from .precision import set_bf16


def read_config(args: argparse.Namespace, *, loaders: tuple[str, ...]) -> Config:
    """Read `args.config`, apply the shared flags and make sure that the data of `loaders` lie where it says.

    Raises FileNotFoundError or ValueError, in one sentence, before any work is done.
    """
    path = _config_file(args.config)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    setup_cache_size_limit_of_dynamo()
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.bundled:
        use_bundled(cfg, args.data or ROOT)
    elif args.data:
        set_data_root(cfg, args.data)
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}'
    _distribute(cfg)
    if args.bundled and not args.data:
        if dist.is_main_process():
            write_shapes(ROOT)
        dist.barrier()
    require_data(cfg, loaders)
    survive_broken_images(cfg)
    return cfg


def set_training(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the flags of tools/train.py to `cfg`, in place, and make sure that its weights lie where it says."""
    _require_weights(cfg)
    if args.amp == 'bf16':
        set_bf16(cfg)
    elif args.amp:
        if not torch.cuda.is_available():
            raise ValueError('--amp fp16 needs a GPU, and there is none; take --amp bf16, or leave it out')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config, which has none')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else str(checkpoint_file(args.resume))


def set_annotations(args: argparse.Namespace) -> None:
    """Turn --ann and --images into settings of the config, in place."""
    dataset = 'test_dataloader.dataset.'
    args.cfg_options = {
        **args.cfg_options, f'{dataset}data_root': '', f'{dataset}ann_file': args.ann,
        f'{dataset}data_prefix.img': args.images, 'test_evaluator.ann_file': args.ann}


def set_testing(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the flags of tools/test.py to `cfg`, in place."""
    cfg.load_from = str(checkpoint_file(args.checkpoint))
    if args.amp:
        set_bf16(cfg)
    if args.show_dir:
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='PictureHook', out_dir=args.show_dir)]
    if args.out:
        if not args.out.endswith(('.pkl', '.pickle')):
            raise ValueError(f'--out is a .pkl file, got {args.out}')
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpDetResults', out_file_path=args.out)]


def training_summary(runner: Runner) -> str:
    """One line: the mean loss over the first and the last tenth of the run, and the last score of every AP."""
    scalars = runner.message_hub.log_scalars
    text = f'{runner.iter} iterations'
    if 'train/loss' in scalars:
        losses = scalars['train/loss'].data[0]
        tenth = max(1, len(losses) // 10)
        text += f', loss {losses[:tenth].mean():.3f} -> {losses[-tenth:].mean():.3f}'
    for name in scalars:
        if name.startswith('val/') and name.endswith(('mAP', 'mAP_50', 'AP50')):
            text += f', {name.removeprefix("val/")} {scalars[name].current():.3f}'
    return f'{text}; checkpoints in {runner.work_dir}'


def _distribute(cfg: Config) -> None:
    """Join the other processes, over gloo where there is no GPU: mmengine by itself knows NCCL's way only."""
    if cfg.launcher == 'none' or dist.is_distributed():
        return
    if torch.cuda.is_available():
        dist.init_dist(cfg.launcher, **cfg.get('env_cfg', {}).get('dist_cfg', {'backend': 'nccl'}))
        return
    if cfg.launcher != 'pytorch' or 'RANK' not in os.environ:
        raise ValueError(f'without a GPU several processes start through torchrun with --launcher pytorch, got '
                         f'--launcher {cfg.launcher}{"" if "RANK" in os.environ else " outside torchrun"}')
    torch.distributed.init_process_group('gloo')
    wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    wrapper.device_ids = None


def _config_file(text: str) -> Path:
    """The file at `text`; 'mmdet::fcos/x.py' is one that came with mmdet, as in a config's _base_."""
    package, colons, name = text.partition('::')
    installed = importlib.util.find_spec(package) if colons else None
    path = Path(installed.origin).parent / '.mim' / 'configs' / name if installed else Path(text)
    if not path.is_file():
        raise FileNotFoundError(f'expected a config file, found none at {text}; configs/ holds ours')
    return path


def _require_weights(cfg: Config) -> None:
    """Raise FileNotFoundError where a part of the model begins with a local file that is not there."""
    for part in dicts_in(cfg.model):
        path = part.get('checkpoint') if part.get('type') == 'Pretrained' else None
        if path and '://' not in path and not Path(path).is_file():
            norms = ' model.backbone.norm_eval=False' if cfg.model.get('backbone', {}).get('norm_eval') else ''
            raise FileNotFoundError(
                f'expected pretrained weights, found none at {path}; put them there as data/README.md says, or train '
                f'from scratch with --cfg-options model.backbone.init_cfg=None{norms}')


def checkpoint_file(path: str) -> Path:
    """The checkpoint file at `path`, or the latest one when it is a work dir."""
    found = Path(path)
    if found.is_dir():
        pointer = found / 'last_checkpoint'
        if not pointer.is_file():
            raise FileNotFoundError(f'expected a checkpoint, found no finished one in {path}; train there first')
        found = found / Path(pointer.read_text().strip()).name
    if not found.is_file():
        raise FileNotFoundError(f'expected a checkpoint, found none at {found}; train first or check the path')
    return found
