"""A run of mmengine's Runner, for detectors and classifiers: config file, processes, flags, and what came of it."""

import argparse
import importlib.util
import os
from pathlib import Path

import torch
from mmengine import dist
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner


def config_file(text: str) -> Path:
    """The file at `text`; 'mmdet::fcos/x.py' is one that came with mmdet, as in a config's _base_."""
    package, colons, name = text.partition('::')
    installed = importlib.util.find_spec(package) if colons and package.isidentifier() else None
    path = Path(installed.origin).parent / '.mim' / 'configs' / name if installed else Path(text)
    if not path.is_file():
        raise FileNotFoundError(f'expected a config file, found none at {text}; configs/ holds ours')
    return path


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


def set_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Apply --amp (fp16's; bf16 is the caller's), --auto-scale-lr and --resume to `cfg`, in place."""
    if args.amp and args.amp != 'bf16':
        if not torch.cuda.is_available():
            raise ValueError('--amp fp16 needs a GPU, and there is none; leave it out, or take bf16 for a detector')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config, which has none')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else str(checkpoint_file(args.resume))


def join_processes(cfg: Config) -> None:
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


def summary(runner: Runner, *, scores: tuple[str, ...]) -> str:
    """One line: the mean loss over the first and the last tenth of the run, and the last of each score.

    scores: how their names end, e.g. 'mAP_50'.
    """
    scalars = runner.message_hub.log_scalars
    text = f'{runner.iter} iterations'
    if 'train/loss' in scalars:
        losses = scalars['train/loss'].data[0]
        tenth = max(1, len(losses) // 10)
        text += f', loss {losses[:tenth].mean():.3f} -> {losses[-tenth:].mean():.3f}'
    for name in scalars:
        if name.startswith('val/') and name.endswith(scores):
            text += f', {name.removeprefix("val/")} {scalars[name].current():.3f}'
    return f'{text}; checkpoints in {runner.work_dir}'
