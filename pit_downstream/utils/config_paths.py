"""Config files by path or by name. The configs of this project are found from any folder."""

import importlib.util
from difflib import get_close_matches
from pathlib import Path

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote

SUFFIXES = ('.py', '.yaml', '.yml')
PACKAGE = Path(__file__).parents[1]


def is_config(name: str) -> bool:
    """Return whether `name` is a config: a path that ends in .py or .yaml, PACKAGE::FILE or a bundled name."""
    return name.endswith(SUFFIXES) or '::' in name or bundled_config(name) is not None


def find_config(name: str | Path) -> Path:
    """Return the path of a config file.

    Args:
        name: A path; `PACKAGE::FILE`, as in `_base_`, for the configs in a package such as mmdet; or the name of a
            bundled config with or without .py, such as 'retinanet_pit_ti'. An existing file takes precedence.

    Raises:
        InputError: There is no such file.
    """
    package, colons, file = str(name).partition('::')
    installed = importlib.util.find_spec(package) if colons and package.isidentifier() else None
    path = Path(installed.origin).parent / '.mim' / 'configs' / file if installed and installed.origin else Path(name)
    if path.suffix in SUFFIXES and path.is_file():
        return path
    bundled = bundled_config(str(name))
    if bundled is None:
        near = get_close_matches(Path(name).stem, [config.stem for config in bundled_configs()], n=3)
        hint = f'Did you mean {", ".join(near)}?' if near else 'Pass a path, or the name of a file in configs/.'
        raise InputError(f'config file not found: {quote(str(name))}. {hint}')
    return bundled


def bundled_config(name: str) -> Path | None:
    """Return the path of the bundled config `name`, None if there is none. A folder 'configs/' may precede it."""
    path = Path(name)
    if path.parent not in (Path('.'), Path('configs')) or path.suffix not in ('', '.py'):
        return None
    return next((config for config in bundled_configs() if config.stem == path.stem), None)


def bundled_configs() -> list[Path]:
    """Return the paths of the bundled configs, sorted by name."""
    return sorted(config_folder().glob('*.py'))


def config_folder() -> Path:
    """Return the folder of our configs: inside the installed package, or beside it in a checkout."""
    installed = PACKAGE / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'
