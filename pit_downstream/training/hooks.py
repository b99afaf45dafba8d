"""mmengine hooks for training classifiers and detectors."""

import io
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import set_random_seed

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import write_atomic
from pit_downstream.evaluation.class_names import ATTRIBUTE
from pit_downstream.evaluation.distributed import broadcast
from pit_downstream.training.safe_loading import require_weights, set_state_dict

WEIGHTS, CLASSES = 'weights.pth', 'classes.txt'


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Hook that seeds all generators before every epoch from (seed, epoch, rank).

    A resumed run then draws the same numbers as an uninterrupted one. timm's and mmdet's augmentations use the global
    generators of Python, numpy and torch. A run without randomness.seed resumes with the seed of its checkpoint,
    including the sampler's.
    """

    def before_train(self, runner) -> None:
        loader, seed = runner.train_dataloader, broadcast(runner.seed)
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            if sampler is not None and hasattr(sampler, 'seed'):
                sampler.seed = seed

    def before_train_epoch(self, runner) -> None:
        words = np.random.SeedSequence([runner.seed, runner.epoch, runner.rank]).generate_state(1)
        set_random_seed(int(words[0]))


@HOOKS.register_module()
class RequireCheckpointHook(Hook):
    """Hook that rejects a checkpoint of another model, whose tensors mmengine would skip with a warning.

    It runs before any training. `path` is for the message. With `resume`, it also rejects a checkpoint without the
    state of a training run.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which copies state_dict

    def __init__(self, path: str, *, resume: bool = False):
        self.path, self.resume = path, resume

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if self.resume and 'epoch' not in (checkpoint.get('meta') or {}):
            raise InputError(f'expected a checkpoint of a training run in {self.path}, got weights without an epoch; '
                             'give epoch_N.pth of a work dir to --resume')
        set_state_dict(checkpoint)
        require_weights(runner.model.module if is_model_wrapper(runner.model) else runner.model,
                        checkpoint['state_dict'], self.path)


@HOOKS.register_module()
class WeightsHook(Hook):
    """Hook that saves the network's state dict beside every checkpoint, with averaged weights if available.

    It is a plain state dict with the names of timm, the evaluation tools and `init_cfg`. The class names are saved in
    its attribute `class_names`, and in classes.txt in the format of --classes.
    """

    priority = 'VERY_LOW'  # after EMAHook has inserted the averaged weights

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        prefix = 'network.'
        state = {name.removeprefix(prefix): value.detach().cpu() for name, value in checkpoint['state_dict'].items()
                 if name.startswith(prefix)}
        state, folder = OrderedDict(state), Path(runner.work_dir)
        if names := checkpoint.get('meta', {}).get('dataset_meta', {}).get('classes'):
            setattr(state, ATTRIBUTE, tuple(names))
            write_atomic(folder / CLASSES, ''.join(f'{name}\n' for name in names))
        torch.save(state, content := io.BytesIO())
        write_atomic(folder / WEIGHTS, content.getbuffer())


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Hook that stops training at a non-finite loss, before a checkpoint is written.

    `interval` is the number of iterations between checks on a GPU or on several ranks, where a check synchronizes.
    There is also a check at the end of an epoch and before every checkpoint.
    """

    priority = 'HIGH'  # before hooks that save or average weights

    def __init__(self, interval: int = 50):
        self.interval = interval
        self._first: torch.Tensor | None = None  # iteration of the first such loss

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if outputs is None or 'loss' not in outputs:
            return
        finite = torch.as_tensor(outputs['loss']).detach().isfinite().all()
        first = torch.where(finite, _NEVER, runner.iter)
        self._first = first if self._first is None else torch.minimum(self._first, first)
        if self.every_n_train_iters(runner, self.interval) or not (first.is_cuda or dist.is_distributed()):
            self._check()

    def after_train_epoch(self, runner) -> None:
        self._check()

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the weights, as gradients may be non-finite at a finite loss. Only rank 0 writes checkpoints."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = checkpoint['state_dict']
        bad = [name for name, _ in model.named_parameters() if name in state and not state[name].isfinite().all()]
        if bad:
            raise InputError(f'Weights are not finite after {runner.iter} iterations: {len(bad)} tensors, among them '
                             f'{bad[0]}. {_ADVICE}')

    def _check(self) -> None:
        if self._first is None:
            return
        dist.all_reduce(self._first, 'min')
        if self._first < _NEVER:
            raise InputError(f'Loss is not finite: NaN or infinity at iteration {int(self._first) + 1}. {_ADVICE}')


_NEVER = 2 ** 62
_ADVICE = ('Check the weights and the data, lower the learning rate, or clip gradients (optim_wrapper.clip_grad); no '
           'checkpoint was written since.')
