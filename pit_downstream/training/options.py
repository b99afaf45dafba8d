"""--cfg-options: override config settings from the command line, and reject keys that nothing reads."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from pit_downstream.utils.errors import InputError

# Keys that mmengine 0.10 reads besides the arguments of Runner, DataLoader and the classes in `type`
TOP_LEVEL = {'auto_scale_lr', 'custom_imports', 'find_unused_parameters', 'model_wrapper_cfg', 'sync_bn', 'tta_model',
             'tta_pipeline'}
LOADER = {'dataset', 'num_batch_per_epoch'}
ANY_TYPE = {'type', '_delete_', '_scope_', 'by_epoch', 'constructor', 'convert_to_iter_based', 'paramwise_cfg',
            'priority'}


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override settings of `cfg`, in place.

    Args:
        cfg: The config.
        options: Value by key, e.g. 'model.bbox_head.num_classes'.

    Raises:
        InputError: A key is neither in `cfg` nor an argument of the class in `type` beside it, or a part of it is
            neither a dict nor a list.
    """
    for key in options:
        _check_key(cfg, key, options)
    cfg.merge_from_dict(dict(options))


def _check_key(cfg: Config, key: str, options: Mapping[str, Any]) -> None:
    node, parts = cfg, key.split('.')
    for depth, name in enumerate(parts):
        path = '.'.join(parts[:depth])
        if isinstance(node, list):
            if not name.isdigit() or int(name) >= len(node):
                raise InputError(f'--cfg-options {key}: {path} is a list of {len(node)}, got {name} as its index. '
                                 f'{_format_hint(cfg, key)}')
            node = node[int(name)]
        elif not isinstance(node, (Mapping, Config)):
            raise InputError(f'--cfg-options {key}: {path} is {str(node)[:200]}, which has no {name}. Set {path} as a '
                             'whole in a config.')
        elif name in node:
            node = node[name]
        else:
            known = _list_known_keys(cfg, node, path, options)
            if known is not None and name not in known:
                near = difflib.get_close_matches(name, sorted({*known, *node}), n=3)
                raise InputError(f'--cfg-options {key}: {path or "the config"} has no {name}. '
                                 f'{_format_hint(cfg, key, [".".join(filter(None, [path, one])) for one in near])}')
            return


def _list_known_keys(cfg: Config, node: Mapping, path: str, options: Mapping[str, Any]) -> set[str] | None:
    """Return the keys that the dict at `path` may have, None if unknown."""
    kind = options.get(f'{path}.type', node.get('type'))
    if not path:
        return {*inspect.signature(Runner.__init__).parameters, *TOP_LEVEL}
    if path.endswith('_dataloader'):
        return {*inspect.signature(DataLoader.__init__).parameters, *LOADER}
    arguments = _list_arguments(_find_class(kind, cfg.get('default_scope') or 'mmengine')) if kind else None
    return None if arguments is None else arguments | ANY_TYPE


def _find_class(kind: Any, scope: str) -> Any:
    """Return the class or function for `type=kind`, None if no registry has it."""
    if not isinstance(kind, str):
        return kind
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry):
            found = registry.get(kind if '.' in kind else f'{scope}.{kind}')
            if found is not None:
                return found
    return None


def _list_arguments(built: Any) -> set[str] | None:
    """Return the argument names of a class, including those passed to base classes, or None if it accepts any."""
    names: set[str] = set()
    for one in inspect.getmro(built) if inspect.isclass(built) else ():
        if '__init__' in vars(one) and one is not object:
            parameters = inspect.signature(vars(one)['__init__']).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                return names
    return None


def _format_hint(cfg: Config, key: str, near: Sequence[str] = ()) -> str:
    """Return a hint with the config's keys that end like `key`, or else the `near` ones."""
    leaf = key.rpartition('.')[2]
    same = [path for path in _iterate_paths(cfg)
            if path.rpartition('.')[2] == leaf and path.split('.')[0] == key.split('.')[0]]
    found = same[:6] or near
    return f'Did you mean {", ".join(found)}?' if found else 'Correct the key.'


def _iterate_paths(node: Any, path: str = '') -> Iterator[str]:
    items = node.items() if isinstance(node, (Mapping, Config)) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        inner = f'{path}.{key}' if path else str(key)
        yield inner
        yield from _iterate_paths(child, inner)
