"""Load mmengine checkpoints without running code from them.

A training checkpoint contains mmengine's HistoryBuffer, with numpy arrays and references to its own methods. torch's
`weights_only` unpickler rejects them unless they are allowed. Allowing the originals would permit code (`getattr`
reaches everything, and a forged numpy.dtype makes numpy read bytes as object pointers). Each name is therefore mapped
to a safe replacement that creates plain numbers only.
"""
import contextlib
import functools
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from pit_downstream.backbones.multi_scale import DetectionBackbone
from pit_downstream.utils.checkpoints import extract_parameters
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.path_checks import write_atomic
from pit_downstream.utils.spec import quote


class _Dtype:
    """Replacement for numpy.dtype: plain bool, integer or float types only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if not (isinstance(code, str) and re.fullmatch(r'b1|[iu][1248]|f[248]', code)):
            raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({code!r})')
        self.plain = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _version, order, subdtype, names, fields = state[:5]
        if (subdtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError('GLOBAL numpy.dtype with fields')
        self.plain = self.plain.newbyteorder(order)


class _Array(np.ndarray):
    """Replacement for numpy.ndarray: an array of numbers, filled from bytes. It is pickled as a plain array."""

    def __new__(cls, *_args) -> '_Array':
        raise pickle.UnpicklingError('GLOBAL numpy.ndarray, called')

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        if type(dtype) is not _Dtype or type(data) is not bytes:
            raise pickle.UnpicklingError('GLOBAL numpy.ndarray of objects')
        super().__setstate__((version, shape, dtype.plain, fortran, data))

    def __reduce__(self) -> Any:
        return np.array(self).__reduce__()


class _History(HistoryBuffer):
    """Replacement for HistoryBuffer that becomes one: it loads the numbers and ignores the methods in the file."""

    def __setstate__(self, state: dict) -> None:
        self.__class__ = HistoryBuffer
        HistoryBuffer.__init__(self, np.array(state['_log_history']), np.array(state['_count_history']),
                               state['max_length'])


def _load_scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.plain, count=1)[0]


def _create_empty_array(*_args) -> _Array:
    return np.ndarray.__new__(_Array, (0,))


def _skip_getattr(*_args) -> None:
    """Replace getattr, which refers to four methods of a HistoryBuffer that _History already has."""


STAND_INS = {
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    'builtins.getattr': _skip_getattr,
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy._core.multiarray._reconstruct': _create_empty_array,  # numpy 2
    'numpy._core.multiarray.scalar': _load_scalar,
    'numpy.core.multiarray._reconstruct': _create_empty_array,  # numpy 1
    'numpy.core.multiarray.scalar': _load_scalar,
}


DAMAGE = ('PytorchStreamReader', 'unexpected EOF', 'corrupt file')  # in torch's RuntimeErrors

REMOTE = {
    'load_from_http': ('http://', 'https://'),
    'load_from_torchvision': ('modelzoo://', 'torchvision://'),
    'load_from_openmmlab': ('open-mmlab://', 'openmmlab://'),
    'load_from_mmcls': ('mmcls://',),
    'load_from_ceph': (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
    'load_from_pavi': ('pavi://',),
}


def register() -> None:
    """Register mmengine loaders that run no code, a `timm://NAME` loader, and a file backend with atomic writes.

    Repeated calls have no further effect.
    """
    _register_stand_ins()
    for name, prefixes in REMOTE.items():
        guarded = _wrap_loader(getattr(mmengine_checkpoint, name))
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=guarded, force=True)
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes='timm://', loader=load_from_timm, force=True)
    register_backend('local', WholeFiles, force=True, prefixes='')


class WholeFiles(LocalBackend):
    """Local file backend of mmengine with atomic writes, so that a full disk leaves no partial checkpoint."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomic(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        write_atomic(filepath, obj.encode(encoding))


def load(path: str | Path, map_location: Any = 'cpu') -> Any:
    """Load a file written by torch.save, with tensors on `map_location`, without running code from it.

    Raises:
        InputError: There is no such file.
        InputError: The file is not a complete checkpoint, has no dictionary, or requires code.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f'no checkpoint at {path}; give the path of an existing file')
    _check_file_header(path)
    _register_stand_ins()
    try:
        found = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as refusal:
        raise InputError(_describe_refusal(path, str(refusal))) from refusal
    except (EOFError, LookupError, struct.error) as error:
        raise InputError(_describe_broken(path)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in DAMAGE):
            raise InputError(_describe_broken(path)) from error
        raise  # a CUDA checkpoint without map_location, out of memory ...: keep torch's message
    _require_names(found, path)
    return found


def require_weights(model: nn.Module, state: Mapping[str, Any], path: str | Path) -> None:
    """Raise InputError unless `state` has a tensor of the right size for each tensor of `model`.

    `path` is for the message. Backbones of this project may have tensors of other names and sizes, which they convert.
    """
    _require_names(state, path)
    names = {name.removeprefix('module.'): value for name, value in state.items()}
    convert = tuple(f'{name}.' for name, part in model.named_modules() if isinstance(part, DetectionBackbone)
                    and any(other.startswith(f'{name}.') for other in names))
    wanted = model.state_dict()
    unfit = [name for name, value in wanted.items() if not name.startswith(convert)
             and getattr(names.get(name), 'shape', None) != value.shape]
    if unfit:
        raise InputError(f'expected the weights of the config in {path}, got other ones: {len(unfit)} of {len(wanted)} '
                         f'tensors are missing or of another size, among them {", ".join(unfit[-4:])}; check config '
                         'and checkpoint')


def set_state_dict(checkpoint: dict[str, Any]) -> None:
    """Set `checkpoint['state_dict']` to the weights of any checkpoint, without DDP's prefix, in place.

    mmengine's EMAHook requires this key and fills its copy of the model from it.
    """
    checkpoint['state_dict'] = {name.removeprefix('module.'): value for name,
                                value in extract_parameters(checkpoint).items()}


def _require_names(content: Any, path: str | Path) -> None:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f'expected a dictionary of tensors by name in the checkpoint {path}, got '
                         f'{type(content).__name__}: {quote(content)}; give another file')


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Load a plain path for mmengine, which logs the part of this function's name after `load_from_`.

    Raises InputError for a checkpoint without tensors, with which a model would silently keep its random weights.
    """
    checkpoint = _drop_config(load(filename, map_location))
    if not extract_parameters(checkpoint):
        raise InputError(f'the checkpoint has no tensors: {filename}. Pass a file with a state dict.')
    return checkpoint


def load_from_timm(filename: str, map_location: Any = None) -> dict[str, torch.Tensor]:
    """Return the state dict of timm's pretrained model for `timm://NAME`, always on the CPU.

    Raises InputError if timm has no weights with this name or the download fails.
    """
    name = filename.removeprefix('timm://')
    if not timm.list_pretrained(name if '.' in name else f'{name}.*'):
        near = timm.list_pretrained(f"*{name.partition('.')[0]}*")[:5]
        raise InputError(f'timm has no weights named {name!r}; '
                         f"did you mean {', '.join(near) or 'one of timm.list_pretrained()'}?")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except OSError as error:  # base class of huggingface_hub's network and cache errors
        raise InputError(f'the weights {filename} could not be downloaded ({type(error).__name__}); '
                         'give a local file with --cfg-options model.backbone.init_cfg.checkpoint=FILE') from error


def _drop_config(checkpoint: Any) -> Any:
    """Remove the config text of a training checkpoint, which mmengine would execute on resume."""
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def _wrap_loader(loader: Callable) -> Callable:
    """Wrap an mmengine loader so that it reads downloads without running code from them."""
    @functools.wraps(loader)
    def guarded(filename: str, map_location: Any = None, **options: Any) -> Any:
        with _request_weights_only():
            try:
                return _drop_config(loader(filename, map_location, **options))
            except pickle.UnpicklingError as refusal:
                raise InputError(_describe_refusal(filename, str(refusal))) from refusal
    return guarded


@contextlib.contextmanager
def _request_weights_only() -> Iterator[None]:
    """Force weights_only by torch's environment variable, since torch.hub passes weights_only=False to torch.load."""
    names = ('TORCH_FORCE_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD')
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[names[0]] = '1'
    try:
        yield
    finally:
        os.environ.pop(names[0])
        os.environ.update(before)


def _register_stand_ins() -> None:
    """Add the replacements to torch's safe globals. Other entries are kept, except originals of the same names."""
    kept = [entry for entry in torch.serialization.get_safe_globals() if _get_full_name(entry) not in STAND_INS]
    torch.serialization.clear_safe_globals()
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    torch.serialization.add_safe_globals([*kept, *stand_ins])


def _get_full_name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def _check_file_header(path: Path) -> None:
    """Raise InputError if the first bytes show that `path` is not a complete checkpoint."""
    with path.open('rb') as file:
        head = file.read(64)
    if head.startswith(b'PK'):
        if not zipfile.is_zipfile(path):
            raise InputError(_describe_broken(path))
    elif head.startswith(b'version https://git-lfs'):
        raise InputError(f'{path} is a Git LFS pointer, not the weights themselves; run `git lfs pull` in its folder')
    elif head.lstrip().startswith(b'<'):
        raise InputError(f'{path} is a web page, not a checkpoint; the download went to a login or error page')
    elif not head:
        raise InputError(f'{path} is empty; download or copy it again')
    elif not head.startswith(b'\x80'):  # the older format, a bare pickle
        raise InputError(f'{path} is not a file that torch.save wrote (it begins with {head[:8]!r})')


def _describe_broken(path: Path | str) -> str:
    size = f' ({os.path.getsize(path)} bytes)' if os.path.isfile(path) else ''
    return f'{path} is cut short, damaged or not written by torch.save{size}; download or copy it again'


def _describe_refusal(path: Path | str, message: str) -> str:
    found = re.search(r'GLOBAL ([^\n]*?)(?: whose| was|\n|$)', message)
    if found is None:
        return _describe_broken(path)
    fix = ('get the weights as a plain state dict, or if you trust where the file comes from make one: '
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)")
    return f'{path} was not loaded, because it contains {found[1]}, which weights do not need; {fix}'
