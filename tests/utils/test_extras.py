import importlib.util
import re
import runpy
import sys
from importlib import metadata
from pathlib import Path

import pytest

from pit_downstream.utils.extras import EXTRAS, MissingExtraError, require_extra

SETUP = Path(__file__).parents[2] / 'setup.py'
INSTALLED_BY = {'pycocotools': 'mmdet'}  # module -> distribution that requires it


@pytest.fixture(scope='module')
def declared():
    """The distributions of each extra in setup.py."""
    options = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('setuptools.setup', options.update)
        runpy.run_path(str(SETUP))
    return {extra: {re.match(r'[\w-]+', line)[0].lower() for line in lines}
            for extra, lines in options['extras_require'].items()}


@pytest.mark.parametrize('extra', EXTRAS)
def test_extra_installs_its_modules(extra, declared):
    providers = metadata.packages_distributions()
    for module in EXTRAS[extra]:
        names = {INSTALLED_BY.get(module, module), *(name.lower() for name in providers.get(module, ()))}
        assert names & declared[extra], module


@pytest.mark.parametrize('extra', EXTRAS)
def test_missing_modules_are_reported_with_the_pip_command(extra, monkeypatch):
    for module in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        require_extra(extra)
    assert str(caught.value) == (f"Modules of the extra '{extra}' are not installed: {', '.join(EXTRAS[extra])}. "
                                 f"Run pip install 'pit_downstream[{extra}]'.")


@pytest.mark.parametrize('extra', sorted(EXTRAS.keys() - {'hf'}))
def test_installed_extra_is_accepted(extra):
    assert importlib.util.find_spec(EXTRAS[extra][0]) and require_extra(extra) is None
