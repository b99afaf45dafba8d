"""pit_downstream.training.launch: which checkpoint of a work dir is the latest, and flags of runs."""

import argparse
import logging

import pytest
import torch
from mmengine.config import Config

from pit_downstream.training.launch import find_checkpoint, find_latest_checkpoint, set_flags
from pit_downstream.utils.errors import InputError


def work_dir(folder, *names, pointer=None):
    """A work dir with checkpoints, the number of each as its content."""
    folder.mkdir()
    for name in names:
        torch.save({'meta': name}, folder / name)
    if pointer is not None:
        (folder / 'last_checkpoint').write_text(pointer)
    return folder


@pytest.mark.parametrize('names, pointer, latest', [
    (['epoch_9.pth', 'epoch_10.pth', 'best_epoch_11.pth'], '{folder}/epoch_9.pth', 'epoch_9.pth'),
    (['epoch_9.pth', 'epoch_10.pth'], '/where/it/was/epoch_9.pth', 'epoch_9.pth'),  # moved
    (['epoch_9.pth', 'epoch_10.pth'], '', 'epoch_10.pth'),  # killed while the pointer was written
    (['epoch_9.pth', 'epoch_10.pth'], '\0\0', 'epoch_10.pth'),  # a power loss
    (['iter_500.pth', 'iter_1000.pth', 'weights.pth'], None, 'iter_1000.pth'),
    (['epoch_2.pth'], '{folder}/epoch_3.pth', 'epoch_2.pth'),  # dangling
    (['best_epoch_2.pth'], None, None)])
def test_the_latest_checkpoint_is_one_of_the_work_dir(tmp_path, names, pointer, latest):
    folder = tmp_path / 'moved'
    work_dir(folder, *names, pointer=pointer and pointer.format(folder=folder))
    assert find_latest_checkpoint(folder) == (latest and folder / latest)
    if latest:
        assert find_checkpoint(str(folder)) == folder / latest
    else:
        with pytest.raises(InputError, match=str(folder)):
            find_checkpoint(str(folder))


def test_a_checkpoint_kept_elsewhere_is_followed(tmp_path):
    """CheckpointHook(out_dir=...) leaves the pointer in the work dir alone."""
    kept = work_dir(tmp_path / 'kept', 'epoch_4.pth')
    assert find_latest_checkpoint(work_dir(tmp_path / 'work', pointer=f'{kept}/epoch_4.pth')) == kept / 'epoch_4.pth'


def test_a_checkpoint_cut_short_is_named_and_left_out(tmp_path, caplog):
    folder = work_dir(tmp_path / 'work', 'epoch_1.pth', 'epoch_2.pth', pointer='')
    (folder / 'epoch_2.pth').write_bytes((folder / 'epoch_2.pth').read_bytes()[:200])  # a disk that was full
    with caplog.at_level(logging.WARNING):
        assert find_latest_checkpoint(folder) == folder / 'epoch_1.pth'
    assert 'epoch_2.pth' in caplog.text
    (folder / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(ValueError, match='epoch_2.pth, epoch_1.pth'):
        find_latest_checkpoint(folder)


@pytest.mark.parametrize('flag, options', [('auto', {}), (None, {'resume': True})])
def test_resuming_takes_the_checkpoint_of_a_work_dir_that_was_moved(tmp_path, flag, options):
    folder = work_dir(tmp_path / 'moved', 'epoch_1.pth', pointer='/where/it/was/epoch_1.pth')
    args = argparse.Namespace(amp=None, auto_scale_lr=False, resume=flag)
    cfg = Config({'work_dir': str(folder), **options})
    set_flags(cfg, args)
    assert cfg.resume and cfg.load_from == str(folder / 'epoch_1.pth')
    empty = Config({'work_dir': str(tmp_path / 'new'), **options})
    set_flags(empty, args)
    assert empty.resume and empty.load_from is None  # which mmengine begins at the beginning
