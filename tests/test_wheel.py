"""The sdist and the wheel, built from the files of the checkout and installed in a virtual environment elsewhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest

from pit_downstream import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns('.*', 'build', 'data', 'dist', 'work_dirs', '*.egg-info', '__pycache__')
CLASSIFIER = ('--model', 'test_vit(num_classes=4)', '--weights', 'random', '--bundled', '--limit', '8')
ONE_EPOCH = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=4',
             'val_dataloader.dataset.indices=4', 'train_dataloader.num_workers=0',
             'train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0',
             'val_dataloader.persistent_workers=False')


def run(*command, cwd):
    """Run a command outside the checkout and return its output."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    return done.stdout


@pytest.fixture(scope='module')
def distributions(tmp_path_factory):
    """The sdist of the checkout, and the wheel built from that sdist."""
    folder = tmp_path_factory.mktemp('distributions')
    tree = folder / 'tree'
    shutil.copytree(ROOT, tree, symlinks=True, ignore=NOT_SOURCE)
    for name in ('.importlinter', 'data/README.md'):
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    run(sys.executable, 'setup.py', '--quiet', 'sdist', '--dist-dir', folder, cwd=tree)
    sdist, = folder.glob('*.tar.gz')
    run(sys.executable, '-m', 'pip', 'wheel', '--use-pep517', '--no-build-isolation', '--no-deps', '--wheel-dir',
        folder, sdist, cwd=folder)
    wheel, = folder.glob('*.whl')
    return sdist, wheel


@pytest.fixture(scope='module')
def bin_folder(distributions, tmp_path_factory):
    """The programs of a virtual environment with the wheel.

    A complete installation downloads some gigabytes. This one finds the requirements in the environment of the tests:
    a .pth file adds its folder of packages. Python does not process .pth files in folders that are added in this way,
    so an editable installation of the checkout has no effect.
    """
    folder = tmp_path_factory.mktemp('venv')
    run(sys.executable, '-m', 'venv', '--without-pip', folder, cwd=folder)
    run(sys.executable, '-m', 'pip', '--python', folder / 'bin' / 'python', 'install', '--no-deps', distributions[1],
        cwd=folder)
    packages = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
    (packages / 'requirements.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return folder / 'bin'


def test_sdist_and_wheel_contain_all_files(distributions):
    sdist, wheel = distributions
    data = {f'pit_downstream/{path.relative_to(ROOT)}': path.read_bytes()
            for path in (ROOT / 'model-index.yml', *(ROOT / 'configs').rglob('*.py'))}
    data |= {str(path.relative_to(ROOT)): path.read_bytes() for path in (ROOT / 'pit_downstream').rglob('*')
             if path.suffix in ('.py', '.css', '.html', '.js', '.typed')}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
        assert names == data.keys()
        assert all(archive.read(name) == content for name, content in data.items())
    with tarfile.open(sdist) as archive:
        files = {name.partition('/')[2] for name in archive.getnames()}
    assert files >= data.keys()
    assert files >= {'README.md', 'CHANGELOG.md', 'CITATION.cff', 'CONTRIBUTING.md', 'LICENSE', 'Makefile',
                     '.importlinter', 'model-index.yml', 'configs/retinanet_pit_ti.py', 'data/README.md',
                     'requirements/constraints.txt', 'tests/test_wheel.py', 'tools/train.py'}
    assert not [name for name in files if '__pycache__' in name or name.startswith(('work_dirs', '.venv'))]


def test_metadata(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        metadata = BytesParser().parsebytes(archive.read(f'pit_downstream-{__version__}.dist-info/METADATA'))
    assert metadata['Version'] == __version__ and metadata['License'] == 'Apache-2.0'
    assert metadata['Requires-Python'] == '>=3.10' and 'Typing :: Typed' in metadata.get_all('Classifier')
    assert set(metadata.get_all('Provides-Extra')) == {'det', 'train', 'report', 'hf', 'export', 'docs', 'test'}
    assert metadata.get_payload().startswith('# pit_downstream')
    assert f'version: {__version__}\n' in (ROOT / 'CITATION.cff').read_text()
    assert f'## {__version__}\n' in (ROOT / 'CHANGELOG.md').read_text()


def test_package_is_imported_from_the_wheel(bin_folder, tmp_path):
    file = run(bin_folder / 'python', '-c', 'import pit_downstream; print(pit_downstream.__file__)', cwd=tmp_path)
    assert Path(file.strip()).is_relative_to(bin_folder.parent)


def test_classifier_is_evaluated(bin_folder, tmp_path):
    out = run(bin_folder / 'pit-downstream', 'eval-imagenet-c', *CLASSIFIER, '--corruptions', 'fog', '--severities', 1,
              '--json', 'summary.json', cwd=tmp_path)
    assert 'fog' in out and (tmp_path / 'summary.json').is_file()


def test_config_is_trained_by_name(bin_folder, tmp_path):
    out = run(bin_folder / 'pit-downstream', 'train', 'retinanet_pit_ti', '--bundled', '--work-dir', 'work',
              '--cfg-options', *ONE_EPOCH, cwd=tmp_path)
    assert '2 iterations, loss' in out and (tmp_path / 'work' / 'epoch_1.pth').is_file()


def test_config_inherits_from_the_package(bin_folder, tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = [__import__('pit_downstream').__path__[0] + '/configs/retinanet_pit_ti.py']\n"
        'model = dict(bbox_head=dict(num_classes=2))\n')
    read = "from mmengine import Config; print(Config.fromfile('mine.py').model.backbone.type)"
    assert run(bin_folder / 'python', '-c', read, cwd=tmp_path).strip() == 'PiT'
