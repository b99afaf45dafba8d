"""When the substitutes are installed, when they are not, and what an op without one says."""
import logging
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from pit_downstream.det import mmcv_ops
from pit_downstream.det.mmcv_ops import install
from tests.det.mmcv_reference import STATE, SUBSTITUTED

substituted = pytest.mark.skipif(not SUBSTITUTED, reason='mmcv has its compiled ops here')


def run(code: str, path: str = '') -> str:
    """The standard output of a fresh interpreter with `path` first on its sys.path."""
    code = f'import sys; sys.path.insert(0, {str(path)!r})\n{code}' if path else f'import sys\n{code}'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# `pit_downstream.det` without its __init__, which itself installs and then needs a whole mmcv and mmdet
INSTALL = f'''
import types
det = sys.modules['pit_downstream.det'] = types.ModuleType('pit_downstream.det')
det.__path__ = [{str(Path(mmcv_ops.__file__).parents[1])!r}]
from pit_downstream.det.mmcv_ops import install
'''


def fake_mmcv(folder, extension: str | None) -> None:
    """An mmcv package whose `_ext` holds the given source; None for no `_ext`, as in mmcv-lite."""
    (folder / 'mmcv').mkdir()
    (folder / 'mmcv' / '__init__.py').write_text('')
    if extension is not None:
        (folder / 'mmcv' / '_ext.py').write_text(extension)


def test_missing_extension_is_substituted(tmp_path):
    fake_mmcv(tmp_path, None)
    out = run(INSTALL + 'print(install(), install()); import mmcv, mmcv._ext; '
              'print(mmcv._ext is sys.modules["mmcv._ext"], mmcv._ext.__name__)', tmp_path)
    assert out.split() == ['substituted', 'substituted', 'True', 'pit_downstream.det.mmcv_ops.ext']


def test_compiled_extension_is_left_alone(tmp_path):
    fake_mmcv(tmp_path, 'def nms(): return "compiled nms"')
    out = run(INSTALL + 'print(install(), install()); import mmcv._ext; print(mmcv._ext.nms(), end=" "); '
              'print("pit_downstream.det.mmcv_ops.ext" in sys.modules)', tmp_path)
    assert out.split() == ['compiled', 'compiled', 'compiled', 'nms', 'False']


def test_extension_already_imported_is_left_alone(monkeypatch):
    compiled = types.ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    assert install() == 'compiled'
    assert sys.modules['mmcv._ext'] is compiled


def test_broken_extension_is_substituted_with_its_reason_logged(tmp_path):
    fake_mmcv(tmp_path, 'raise ImportError("undefined symbol: _ZN3c10")')
    out = run('import logging; logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")\n'
              + INSTALL + 'print(install())', tmp_path)
    assert out.splitlines() == ['WARNING mmcv has compiled ops but they do not load, so torch and torchvision replace '
                                'them: undefined symbol: _ZN3c10', 'substituted']


def test_missing_extension_is_no_reason_to_warn(caplog):
    with caplog.at_level(logging.WARNING):
        assert install() == STATE
    assert not caplog.records


def test_install_imports_neither_mmdet_nor_mmcv_ops():
    heavy = 'print([name for name in ("mmdet", "mmcv.ops") if name in sys.modules])'
    assert run(INSTALL + f'install(); {heavy}') == '[]'


@substituted
def test_unknown_op_names_itself_and_the_cure():
    from mmcv.ops import nms_rotated
    with pytest.raises(NotImplementedError, match=r"the mmcv op 'nms_rotated' has no substitute in pit_downstream; "
                                                  r'install a compiled mmcv .*MMCV_WITH_OPS=1'):
        nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)


@substituted
def test_every_name_is_answered_but_dunder_names():
    from mmcv import _ext
    assert callable(_ext.no_such_op) and hasattr(_ext, '_private')
    assert not hasattr(_ext, '__path__')


@substituted
def test_collect_env_works():
    from mmcv.utils import collect_env
    assert 'pit_downstream' in collect_env()['MMCV Compiler']
