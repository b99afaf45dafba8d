"""Locations of the configs that come with the package."""

from pathlib import Path

from pit_downstream.utils.errors import InputError

_PACKAGE = Path(__file__).parents[1]


def config_folder() -> Path:
    """Return the folder of our configs: inside the installed package, or beside it in a checkout."""
    installed = _PACKAGE / 'configs'
    return installed if installed.is_dir() else _PACKAGE.parent / 'configs'


def find_config(name: str | Path) -> Path:
    """Return the path of a config file: `name` if it is a file, else the file of that name among our configs.

    The suffix '.py' may be left out: 'retinanet_pit_ti' is found from any folder.

    Raises:
        InputError: There is no such file.
    """
    for path in (Path(name), config_folder() / name, config_folder() / f'{name}.py'):
        if path.is_file():
            return path
    raise InputError(f'No config file {name}. Pass the path of a file, or the name of a file in '
                     f'{config_folder()}.')
