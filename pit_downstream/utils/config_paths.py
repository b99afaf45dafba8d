"""Locations of the configs that come with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
CONFIG_FOLDERS = (_PACKAGE / 'configs', _PACKAGE.parent / 'configs')  # of an installed wheel, of a checkout


def find_config(name: str | Path) -> Path:
    """Return the path of a config file: `name` if it is a file, else the file of that name among our configs.

    The suffix '.py' may be left out: 'retinanet_pit_ti' is found from any folder.

    Raises:
        FileNotFoundError: There is no such file.
    """
    candidates = [Path(name), *(folder / f'{name}{suffix}' for folder in CONFIG_FOLDERS for suffix in ('', '.py'))]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f'No config file {name}. Pass the path of a file, or the name of a file in '
                                f'{next((str(f) for f in CONFIG_FOLDERS if f.is_dir()), "configs/")}.')
    return path
