"""Launch mmengine's Runner for detectors and classifiers: config file, processes, flags and summary."""

import argparse
import logging
import os
import re
import zipfile
from itertools import takewhile
from pathlib import Path

import torch
from mmengine import dist
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from pit_downstream.evaluation.distributed import rank_env
from pit_downstream.utils.config_paths import find_config
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.slurm import get_env_world_size, require_one_process
from pit_downstream.training import hooks  # noqa: F401  registers them

_log = logging.getLogger(__name__)


def load_config(text: str) -> Config:
    """Read a config file (see find_config) and its base configs.

    Raises InputError for a setting that cannot be merged with its base, or for a missing base.
    """
    path = find_config(text)
    try:
        return Config.fromfile(path)
    except TypeError as error:
        if 'cannot inherit from base' not in str(error):  # raised by the code of a config
            raise
        raise InputError(f'{text} does not fit its _base_: {str(error).partition(". You may")[0]}. Write a list in '
                         'full, or set its entries with --cfg-options, such as '
                         'model.roi_head.bbox_head.0.num_classes=2') from error
    except FileNotFoundError as error:
        raise InputError(f'{text} needs a file that is missing: {error.filename or error}. Correct its '
                         '_base_.') from error


def find_checkpoint(path: str) -> Path:
    """Return the checkpoint file at `path`, or the latest one in a work dir."""
    if Path(path).is_dir():
        found = find_latest_checkpoint(path)
        if found is None:
            raise InputError(f'expected a checkpoint, found no finished one in {path}; train there first')
        return found
    if not Path(path).is_file():
        raise InputError(f'expected a checkpoint, found none at {path}; train first or check the path')
    return Path(path)


def find_latest_checkpoint(work_dir: str | Path) -> Path | None:
    """Return the latest complete checkpoint of a work dir, None if there is none.

    It is the file in last_checkpoint: by name in `work_dir`, which may have moved since, else by its path. If
    last_checkpoint is empty or missing, or its file is missing or truncated, it is the epoch_N.pth or iter_N.pth with
    the largest N.

    Raises:
        InputError: All checkpoints are truncated.
    """
    folder, pointer = Path(work_dir), Path(work_dir, 'last_checkpoint')
    text = pointer.read_text(errors='replace').strip('\0 \n') if pointer.is_file() else ''
    named = [Path(folder, Path(text).name), Path(text)] if text else []
    numbered = {path: int(found[1]) for path in folder.glob('*_*.pth')
                if (found := re.fullmatch(r'(?:epoch|iter)_(\d+)\.pth', path.name))}
    files = dict.fromkeys(path for path in [*named, *sorted(numbered, key=numbered.__getitem__, reverse=True)]
                          if path.is_file())
    whole = next((path for path in files if zipfile.is_zipfile(path)), None)  # torch.save finished
    if files and whole is None:
        raise InputError(f'expected a checkpoint in {folder}, got only files that are cut short: '
                         f'{", ".join(path.name for path in files)}; remove them to start from the beginning')
    cut = [path.name for path in takewhile(lambda path: path != whole, files)]
    if cut:
        _log.warning('%s: %d checkpoints ignored, which are cut short: %s', folder, len(cut), ', '.join(cut))
    return whole


def set_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Apply --amp fp16, --auto-scale-lr and --resume to `cfg`, in place, and add FiniteLossHook.

    bf16 is left to the caller. Raises InputError for an invalid seed.
    """
    seed = cfg.get('randomness', {}).get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2 ** 32):
        raise InputError(f'randomness.seed must be an integer in 0..4294967295, got {seed!r}. Choose another one')
    if args.amp and args.amp != 'bf16':
        if not torch.cuda.is_available():
            raise InputError('--amp fp16 needs a GPU, and there is none; leave it out, or take bf16 for a detector')
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    add_hooks(cfg, 'FiniteLossHook')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config, which has none')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else str(find_checkpoint(args.resume))
    if cfg.get('resume') and not cfg.get('load_from'):
        found = find_latest_checkpoint(cfg.work_dir)  # mmengine would use the old path of a moved work dir
        cfg.load_from = found and str(found)  # None: start from the beginning
    if cfg.get('resume') and cfg.get('load_from'):
        require_checkpoint(cfg, resume=True)


def require_checkpoint(cfg: Config, *, resume: bool = False) -> None:
    """Make the run of `cfg` reject its `load_from` if it has the weights of another model."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []),
                        dict(type='RequireCheckpointHook', path=cfg.load_from, resume=resume)]


def add_hooks(cfg: Config, *types: str) -> None:
    """Add custom hooks without arguments to `cfg`, in place, unless it has hooks of these types."""
    given = list(cfg.get('custom_hooks') or [])
    present = [hook.get('type') for hook in given]
    cfg.custom_hooks = [*given, *(ConfigDict(type=name) for name in types if name not in present)]


def join_processes(cfg: Config) -> None:
    """Initialize the process group, with gloo if there is no GPU, since mmengine supports only NCCL."""
    if dist.is_distributed():
        return
    if cfg.launcher == 'slurm' and get_env_world_size() == 1:
        if 'SLURM_PROCID' not in os.environ:
            raise InputError('expected a task of srun for --launcher slurm, got a process without SLURM_PROCID; start '
                             'it with srun, or leave --launcher out')
        cfg.launcher = 'none'
    if cfg.launcher == 'none':
        require_one_process('a run without --launcher')
        return
    on_gpu = torch.cuda.is_available()
    if cfg.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise InputError('expected a process of torchrun for --launcher pytorch, got one without RANK; start it with '
                         'torchrun, or leave --launcher out')
    if cfg.launcher == 'mpi' and not on_gpu:
        raise InputError('expected --launcher pytorch or slurm without a GPU, got mpi')
    options = dict(cfg.get('env_cfg', {}).get('dist_cfg') or {'backend': 'nccl'})
    if port := options.pop('port', None):  # mmengine's port setting under Slurm
        os.environ.setdefault('MASTER_PORT', str(port))
    if cfg.launcher != 'mpi':
        rank_env(gpus=on_gpu)
    if on_gpu:
        dist.init_dist('mpi' if cfg.launcher == 'mpi' else 'pytorch', **options)
        return
    torch.distributed.init_process_group('gloo')
    wrapper = cfg.setdefault('model_wrapper_cfg', ConfigDict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    wrapper.device_ids = None


def summary(runner: Runner, *, scores: tuple[str, ...]) -> str:
    """Return one line with the mean loss over the first and last tenth of the run, and the last of each score.

    `scores` are suffixes of score names, e.g. 'mAP_50'.
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
