"""Check the installation for object detection and print a fix for each problem.

    python -m pit_downstream.check

At import it needs only the standard library, so it can report any missing package. The exit status is 1 on any FAIL.
"""
import importlib
import importlib.util
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pit_downstream.utils.extras import install_command

CORE = ('torch', 'torchvision', 'timm', 'numpy', 'pycocotools', 'imagecorruptions')
MM = ('pkg_resources', 'mmengine', 'mmdet', 'mmcv')
FIXES = {name: install_command('det') for name in MM} | {'pkg_resources': "pip install 'setuptools<81'"}


@dataclass(frozen=True)
class Finding:
    subject: str
    detail: str
    fix: str = ''  # the fix; empty if the check passed

    def __str__(self) -> str:
        line = f"{'FAIL' if self.fix else 'ok':4}  {self.subject:16}  {self.detail}"
        return f'{line}\n{"":24}{self.fix}' if self.fix else line


def run_checks() -> Iterator[Finding]:
    """Yield the results of all checks, from the interpreter up. Stops when later checks cannot run."""
    yield Finding('python', platform.python_version())
    packages = [_check_package(name) for name in (*CORE, *MM)]
    yield from packages
    if any(package.fix for package in packages[:len(CORE)]):
        return
    yield Finding('device', _describe_device())
    if any(package.fix for package in packages):
        return
    stack = _run_check('mmdet.models', _import_mmdet)
    yield stack
    if stack.fix:
        return
    yield _run_check('checkpoint', _load_training_checkpoint)
    yield _run_check('safe loading', _reject_code)
    yield _run_check('nms', _check_nms)
    yield _run_check('roi_align', _check_roi_align)


def _check_package(name: str) -> Finding:
    """Check the distributions that provide the import name `name`, such as forks or compiled builds."""
    if importlib.util.find_spec(name) is None:
        return Finding(name, 'not installed', FIXES.get(name, 'pip install pit_downstream'))
    # Python 3.10 lists only packages with a top_level.txt; most others have their import name
    distributions = sorted(set(metadata.packages_distributions().get(name, [name])))
    try:
        versions = [f'{distribution} {metadata.version(distribution)}' for distribution in distributions]
    except metadata.PackageNotFoundError:
        return Finding(name, 'version unknown, pip did not install it')
    if len(versions) > 1:
        return Finding(name, ' and '.join(versions), 'these are in one folder and overwrite each other; '
                       f'pip uninstall {" ".join(distributions)}, then install one of them')
    return Finding(name, versions[0])


def _describe_device() -> str:
    import torch
    if not torch.cuda.is_available():
        return 'CPU' if torch.version.cuda is None else f'CPU (torch is built for CUDA {torch.version.cuda}, no GPU)'
    return f'{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})'


def _run_check(subject: str, check: Callable[[], str]) -> Finding:
    """Run a check and return its result. The message of an error becomes the fix."""
    try:
        return Finding(subject, check())
    except (ImportError, ValueError, RuntimeError) as error:
        return Finding(subject, 'does not work', str(error))


def _import_mmdet() -> str:
    from pit_downstream.det import mmcv_ops
    operators = mmcv_ops.install()
    importlib.import_module('mmdet.models')
    return f'imported; operators of mmcv: {operators}'


def _load_training_checkpoint() -> str:
    """Save the parts of a training checkpoint that are not plain weights, and load them as a Runner does."""
    import torch
    from mmengine.logging import MessageHub
    from mmengine.runner.checkpoint import CheckpointLoader

    hub = MessageHub('pit_downstream.check')
    hub.update_scalar('train/loss', 0.5)
    weights = {'weight': torch.arange(6.).reshape(2, 3)}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'epoch_1.pth')
        torch.save({'state_dict': weights, 'message_hub': hub.state_dict()}, path)
        loaded = CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')
    _require_equal('the weights', loaded['state_dict']['weight'].tolist(), weights['weight'].tolist())
    _require_equal('train/loss', loaded['message_hub']['log_scalars']['train/loss'].current(), 0.5)
    return 'a training checkpoint of mmengine is loaded with weights_only'


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), 'w')  # an unsafe unpickler creates the file


def _reject_code() -> str:
    import torch

    from pit_downstream.training import safe_loading as checkpoint
    with tempfile.TemporaryDirectory() as folder:
        marker = Path(folder) / 'ran'
        path = Path(folder) / 'harmful.pth'
        torch.save({'state_dict': _Payload(marker)}, path)
        try:
            checkpoint.load(path)
        except ValueError:
            refused = not marker.exists()
        else:
            refused = False
    if not refused:
        raise RuntimeError('code in a checkpoint was executed; load only files that you trust, and report this')
    return 'a checkpoint that contains code is rejected'


def _check_nms() -> str:
    """Check NMS at threshold 0.5: boxes 0 and 1 share 81 of 119 square pixels (IoU 0.68), so box 1 is removed."""
    from mmcv.ops import nms
    boxes = _make_tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    _require_equal('nms', nms(boxes, _make_tensor([.9, .8, .7]), 0.5)[1].tolist(), [0, 2])
    return f'correct on {boxes.device.type}'


def _check_roi_align() -> str:
    """Check that RoIAlign of the values 0..15 in a 4 x 4 map returns the mean of each quarter."""
    import torch
    from mmcv.ops import roi_align
    features = torch.arange(16., device=_make_tensor([]).device).reshape(1, 1, 4, 4)
    pooled = roi_align(features, _make_tensor([[0, 0, 0, 4, 4]]), (2, 2), 1.0, 2, 'avg', True)
    _require_equal('roi_align', pooled.flatten().tolist(), [2.5, 4.5, 10.5, 12.5])
    return f'correct on {features.device.type}'


def _make_tensor(values: list):
    import torch
    return torch.tensor(values, dtype=torch.float32, device='cuda' if torch.cuda.is_available() else 'cpu')


def _require_equal(name: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise RuntimeError(f'{name}: expected {expected}, got {actual}; please report this with the lines above')


def main() -> int:
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # imagecorruptions; setuptools is pinned
    failed = False
    for finding in run_checks():
        print(finding)
        failed |= bool(finding.fix)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
