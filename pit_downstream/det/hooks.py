"""mmengine hooks for configs."""

from collections.abc import Iterator

from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import Dataset

from pit_downstream.training import image_data as data  # noqa: F401  registers leave_seeds_to_torch
from pit_downstream.training.safe_loading import set_state_dict
from pit_downstream.training.hooks import EpochSeedHook
from pit_downstream.training.launch import add_hooks
from pit_downstream.utils.errors import InputError


@HOOKS.register_module()
class BackboneLoadFromHook(Hook):
    """Hook that lets `load_from` take a checkpoint of a detector or of a classifier.

    The tensors of a classifier become `backbone.*`.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which copies state_dict

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        set_state_dict(checkpoint)
        state = checkpoint['state_dict']
        if not state:
            raise InputError(f'the checkpoint has no tensors: {runner.cfg.get("load_from")}. Set load_from to a file '
                             'with a state dict.')
        if not any('backbone.' in name for name in state):
            checkpoint['state_dict'] = {f'backbone.{name}': value for name, value in state.items()}


@HOOKS.register_module()
class DetectionEpochSeedHook(EpochSeedHook):
    """EpochSeedHook that also clears the image caches of transforms (CachedMosaic, CachedMixUp)."""

    def before_train_epoch(self, runner) -> None:
        super().before_train_epoch(runner)
        for transform in _iterate_transforms(runner.train_dataloader.dataset):
            if hasattr(transform, 'results_cache'):
                transform.results_cache = []


def _iterate_transforms(dataset: Dataset) -> Iterator[object]:
    """Yield the transforms of a dataset and of the datasets inside."""
    pipeline = getattr(dataset, 'pipeline', ())
    yield from getattr(pipeline, 'transforms', pipeline)
    for inner in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if inner is not None:
            yield from _iterate_transforms(inner)


def make_resumable(cfg: Config) -> None:
    """Make a run that is resumed after an epoch equal to an uninterrupted one, in place.

    Worker processes are restarted for each epoch, since persistent ones keep the state of their generators.
    Iteration-based loops do not change: mmengine advances their data.
    """
    if cfg.train_cfg.get('type') == 'EpochBasedTrainLoop' or cfg.train_cfg.get('by_epoch'):
        add_hooks(cfg, 'DetectionEpochSeedHook')
        cfg.train_dataloader.persistent_workers = False
        cfg.train_dataloader.setdefault('worker_init_fn', dict(type='skip_worker_seeding'))
