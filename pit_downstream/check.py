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


def findings() -> Iterator[Finding]:
    """Yield the results of all checks, from the interpreter up. Stops when later checks cannot run."""
    yield Finding('python', platform.python_version())
    packages = [_package(name) for name in (*CORE, *MM)]
    yield from packages
    if any(package.fix for package in packages[:len(CORE)]):
        return
    yield Finding('device', _device())
    if any(package.fix for package in packages):
        return
    stack = _attempt('mm stack', _bring_up)
    yield stack
    if stack.fix:
        return
    yield _attempt('checkpoint', _round_trip)
    yield _attempt('refusal', _refuse_code)
    yield _attempt('nms', _nms)
    yield _attempt('roi_align', _roi_align)


def _package(name: str) -> Finding:
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
        return Finding(name, ' and '.join(versions), 'these lie in one folder and overwrite each other; '
                       f'pip uninstall {" ".join(distributions)}, then install one of them')
    return Finding(name, versions[0])


def _device() -> str:
    import torch
    if not torch.cuda.is_available():
        return 'CPU' if torch.version.cuda is None else f'CPU (torch is built for CUDA {torch.version.cuda}, no GPU)'
    return f'{torch.cuda.get_device_name()} (CUDA {torch.version.cuda})'


def _attempt(subject: str, check: Callable[[], str]) -> Finding:
    """Run a check and return its result. The message of an error becomes the fix."""
    try:
        return Finding(subject, check())
    except (ImportError, ValueError, RuntimeError) as error:
        return Finding(subject, 'does not work', str(error))


def _bring_up() -> str:
    from pit_downstream.det import mmcv_ops
    operators = mmcv_ops.install()
    importlib.import_module('mmdet.models')
    return f'mmdet.models imports; operators of mmcv: {operators}'


def _round_trip() -> str:
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
    _same('the weights', loaded['state_dict']['weight'].tolist(), weights['weight'].tolist())
    _same('train/loss', loaded['message_hub']['log_scalars']['train/loss'].current(), 0.5)
    return 'a training checkpoint of mmengine loads, weights_only'


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), 'w')  # an unsafe unpickler creates the file


def _refuse_code() -> str:
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
        raise RuntimeError('code in a checkpoint was run; load no files that you did not write, and report this')
    return 'a checkpoint that contains code is not loaded'


def _nms() -> str:
    """Check NMS at threshold 0.5: boxes 0 and 1 share 81 of 119 square pixels (IoU 0.68), so box 1 is removed."""
    from mmcv.ops import nms
    boxes = _tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    _same('nms', nms(boxes, _tensor([.9, .8, .7]), 0.5)[1].tolist(), [0, 2])
    return f'right on {boxes.device.type}'


def _roi_align() -> str:
    """Check that RoIAlign of the values 0..15 in a 4 x 4 map returns the mean of each quarter."""
    import torch
    from mmcv.ops import roi_align
    features = torch.arange(16., device=_tensor([]).device).reshape(1, 1, 4, 4)
    pooled = roi_align(features, _tensor([[0, 0, 0, 4, 4]]), (2, 2), 1.0, 2, 'avg', True)
    _same('roi_align', pooled.flatten().tolist(), [2.5, 4.5, 10.5, 12.5])
    return f'right on {features.device.type}'


def _tensor(values: list):
    import torch
    return torch.tensor(values, dtype=torch.float32, device='cuda' if torch.cuda.is_available() else 'cpu')


def _same(what: str, came: object, expected: object) -> None:
    if came != expected:
        raise RuntimeError(f'{what}: expected {expected}, got {came}; please report this with the lines above')


def main() -> int:
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')  # imagecorruptions; setuptools is pinned
    failed = False
    for finding in findings():
        print(finding)
        failed |= bool(finding.fix)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
