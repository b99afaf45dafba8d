"""COCO-C against mmdet's script on the bundled images: coco_c_speed.py without a dataset.

python -m speed.coco_c_bundled [--config configs/retinanet_pit_ti.py] [--limit 20] [--threads 2] [--quick]

The weights are random, since only time is measured. Adds its rows to work_dirs/bench/results.csv.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.registry import init_default_scope

import pit_downstream.det  # noqa: F401  before anything of mmdet's
from speed import coco_c_speed
from speed.runner import bench_parser
from mmdet.registry import MODELS
from pit_downstream.det import config_utils
from pit_downstream.datasets.shapes import ROOT


def prepare(config: str, folder: Path) -> tuple[Path, Path]:
    """Write the config for the bundled data and a checkpoint of random weights to `folder`, and return both paths."""
    flags = SimpleNamespace(config=config, launcher='none', local_rank=0, bundled=True, data=None, cfg_options={},
                            work_dir=str(folder))
    cfg = config_utils.read_config(flags, loaders=())
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.update(score_thr=0.0, nms_pre=100)  # mmdet's script fails without detections
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.init_weights()
    files = folder / Path(config).name, folder / 'random.pth'
    cfg.dump(files[0])
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, files[1])
    return files


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('--config', default='configs/retinanet_pit_ti.py')
    parser.add_argument('--limit', type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config, checkpoint = prepare(args.config, Path(folder))
        sys.argv[1:] = [str(config), str(checkpoint), '--data', ROOT, '--limit', str(args.limit), '--aside',
                        '--threads', str(args.threads), *(['--quick'] if args.quick else [])]
        coco_c_speed.main()


if __name__ == '__main__':
    main()
