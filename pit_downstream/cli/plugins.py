"""User modules, imported from the folder where Python was started."""

import importlib
import sys
from collections.abc import Iterable

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote


def add_cwd_to_path() -> None:
    """Add the current folder to Python's module path, as `python -m` does."""
    if '' not in sys.path:
        sys.path.insert(0, '')


def import_plugins(modules: Iterable[str]) -> None:
    """Import the modules of --import. Raises InputError for one that does not exist."""
    for module in modules:
        add_cwd_to_path()
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or ' '):
                raise
            raise InputError(f'no module {quote(module)} for --import. Run where Python finds it, or set '
                             'PYTHONPATH.') from error
