"""What happens around the epochs of a classifier's training."""

import os
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed

WEIGHTS = 'weights.pth'


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed all generators before every epoch from (seed, epoch, rank), so that a resumed run draws what one that was
    never stopped does. timm's augmentations know no other generators than Python's, numpy's and torch's own."""

    def before_train_epoch(self, runner) -> None:
        words = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank]).generate_state(1)
        set_random_seed(int(words[0]))


@HOOKS.register_module()
class WeightsHook(Hook):
    """Beside every checkpoint keep the network alone, averaged weights where there are: a plain state dict under the
    names that timm, the measuring tools and `init_cfg` know."""

    priority = 'VERY_LOW'  # after EMAHook has put the averaged weights in place

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        prefix = 'network.'
        state = {name.removeprefix(prefix): value.detach().cpu() for name, value in checkpoint['state_dict'].items()
                 if name.startswith(prefix)}
        path = Path(runner.work_dir, WEIGHTS)
        torch.save(state, path.with_suffix('.new'))
        os.replace(path.with_suffix('.new'), path)  # whole or not at all
