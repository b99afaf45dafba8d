"""Check of the class names in a detector's checkpoint against those of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from pit_downstream.det.classes import join_names
from pit_downstream.utils.errors import InputError


@HOOKS.register_module()
class CheckpointClassesHook(Hook):
    """Hook that rejects a checkpoint, for testing or resuming, that was trained on other classes than the dataset's."""

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        loop = runner.train_loop if runner._resume else runner.test_loop
        check_class_names(checkpoint, loop.dataloader.dataset.metainfo.get('classes') or (), str(runner._load_from))


def check_class_names(checkpoint: Mapping[str, Any], classes: Sequence[str], file: str) -> None:
    """Raise InputError unless the class names in a checkpoint, if it has any, equal `classes` in the same order.

    mmengine saves them as meta.dataset_meta.classes; mmdet 2 saved meta.CLASSES. file: name for the error.
    """
    meta = checkpoint.get('meta') or {}
    known = {key.lower(): value for key, value in {**meta, **(meta.get('dataset_meta') or {})}.items()}.get('classes')
    if not known or not classes or isinstance(known, str) or tuple(known) == tuple(classes):
        return
    order = 'in another order than' if sorted(map(str, known)) == sorted(map(str, classes)) else 'other than'
    raise InputError(f'{file} was trained on the classes {join_names(known)}, {order} those of the data: '
                     f'{join_names(classes)}. Set metainfo.classes of the dataset to the names of the checkpoint, '
                     'in their order.')
