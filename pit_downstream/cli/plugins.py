"""User modules, imported from the folder where Python was started."""

import importlib
import sys

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote


def add_cwd_to_path() -> None:
    """Add the current folder to Python's module path, as `python -m` does."""
    if '' not in sys.path:
        sys.path.insert(0, '')


def import_plugin(module: str) -> None:
    add_cwd_to_path()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(error.name):
            raise
        raise InputError(f'no module {quote(module)} for --import; run where Python finds it, or set '
                         'PYTHONPATH') from error
