"""Cost of COCO-C relative to clean passes and to mmdet's test_robustness.py, on the same images and model.

python -m speed.coco_c_speed CONFIG CHECKPOINT --data DIR [--limit 20] [--corruptions fog ...] [--threads 2]
    [--quick]

Three runs are timed in sequence on the first images of the config's test set: 76 clean passes (decode, resize, detect,
count; a few are run and scaled up), the whole benchmark as in tools/eval_coco_c.py, and mmdet's unchanged script. The
script needs its folder on the path, an init_cfg in the backbone, and imagecorruptions patched to run
(tests/reference/imagecorruptions_patched.py). A fourth run of ours, not timed, has mmdet's color order. The APs of the
three have rows of their own.
"""

import argparse
import importlib.util
import json
import pickle
import runpy
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config

import pit_downstream.det  # noqa: F401  before anything of mmdet's
from mmdet.datasets.transforms import transforms
from pit_downstream.benchmarks import coco_c
from pit_downstream.results.condition import CLEAN
from pit_downstream.results.records import Table
from pit_downstream.det import config_utils
from pit_downstream.det.metric import build_metric
from pit_downstream.det.predictor import build_detector
from pit_downstream.det.samples import build_detection_samples
from pit_downstream.evaluation.evaluator import EvaluationOptions, Evaluator, Store
from speed.runner import bench_parser, record
from speed.table import SECONDS, Comparison, Spread
from tests.reference.imagecorruptions_patched import reference

MMDET = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim'
PEER = "mmdet's test_robustness.py"
CLEAN_PASSES = 3  # passes that are run of the 76; the time is scaled up


def small_config(args: argparse.Namespace, folder: str) -> Config:
    """Return the config with its first `limit` images only, and with an init_cfg for mmdet's script to empty."""
    flags = SimpleNamespace(config=args.config, launcher='none', local_rank=0, bundled=False, data=args.data,
                            cfg_options={}, work_dir=folder)
    cfg = config_utils.read_config(flags, loaders=('test_dataloader',))
    content = json.loads(Path(cfg.test_evaluator.ann_file).read_text())
    content['images'] = content['images'][:args.limit]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in kept]
    path = str(Path(folder, 'some.json'))
    Path(path).write_text(json.dumps(content))
    cfg.test_evaluator.ann_file = cfg.test_dataloader.dataset.ann_file = path
    cfg.model.backbone.init_cfg = dict(type=None)
    return cfg


def ours(args: argparse.Namespace, cfg: Config, conditions: tuple) -> tuple[float, Table]:
    """Return the seconds from the built model to the last record, and the records."""
    samples = build_detection_samples(cfg)
    predictor = build_detector(cfg, config_utils.find_checkpoint(args.checkpoint), config=Path(args.config).stem)
    start = time.perf_counter()
    options = EvaluationOptions(workers=args.workers, batch_size=cfg.test_dataloader.batch_size)
    table = Evaluator(predictor, samples, [build_metric(cfg, samples)], conditions, store=Store(None),
                      options=options).run()
    return time.perf_counter() - start, table


def theirs(args: argparse.Namespace, cfg: Config, names: list[str], folder: str) -> tuple[float, dict]:
    """Return the seconds of mmdet's script from the start of main(), and its rounded AP by corruption and severity."""
    config, out = Path(folder, 'config.py'), Path(folder, 'out.pkl')
    cfg.dump(config)
    random = np.random.default_rng(0)

    def corrupt(image: np.ndarray, corruption_name: str, severity: int) -> np.ndarray:
        return reference(image, corruption_name, severity, int(random.integers(2 ** 31)))
    argv = ['test_robustness.py', str(config), str(config_utils.find_checkpoint(args.checkpoint)), '--out', str(out),
            '--corruptions', *names, '--work-dir', folder, '--severities', '0', *map(str, coco_c.SEVERITIES)]
    script = MMDET / 'tools' / 'analysis_tools' / 'test_robustness.py'
    with mock.patch.object(sys, 'argv', argv), mock.patch.object(sys, 'path', [str(MMDET), *sys.path]), \
            mock.patch.object(transforms, 'corrupt', corrupt):
        main = runpy.run_path(str(script))['main']
        start = time.perf_counter()
        main()
        seconds = time.perf_counter() - start
    return seconds, pickle.loads(Path(folder, 'out_results.pkl').read_bytes())


def mean_precisions(names: list[str], right: Table, bgr: Table, mmdet: dict, what: tuple[str, str]
                    ) -> Iterator[Comparison]:
    """Yield the AP of ours and of mmdet by corruption, averaged over the severities: our color order, then mmdet's."""
    def mean(values: Iterable[float]) -> Spread:
        return Spread.of(float(np.mean(list(values))))
    yield Comparison(*what, 'AP, clean', '', Spread.of(right[CLEAN, 'AP']), PEER,
                     Spread.of(mmdet[names[0]][0]['coco/bbox_mAP']))
    for name in names:
        theirs = mean(mmdet[name][severity]['coco/bbox_mAP'] for severity in coco_c.SEVERITIES)
        for table, order in ((right, ''), (bgr, 'bgr')):
            about = {'order': order} if order else {}
            mine = mean(table[coco_c.make_condition(name, severity, **about), 'AP'] for severity in coco_c.SEVERITIES)
            yield Comparison(*what, ', '.join(filter(None, ('AP', name, order))), '', mine, PEER, theirs)


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--data', required=True)
    parser.add_argument('--limit', type=int, default=20)
    parser.add_argument('--corruptions', nargs='+', default=list(coco_c.CORRUPTIONS))
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--aside', action='store_true', help=argparse.SUPPRESS)  # used by coco_c_bundled.py
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.limit, args.corruptions = 4, ['contrast']
    names = args.corruptions
    conditions = coco_c.list_conditions(names)
    with tempfile.TemporaryDirectory() as folder:
        cfg = small_config(args, folder)
        passes = [len(conditions) * ours(args, cfg, (CLEAN,))[0] for _ in range(CLEAN_PASSES)]
        whole, table = ours(args, cfg, conditions)
        slow, mmdet = theirs(args, cfg, names, folder)
        _, bgr = ours(args, cfg, coco_c.list_conditions(names, order='bgr'))
    what = 'COCO-C, end to end', f'{table.model}, {args.limit} images, {len(conditions)} passes'
    clean = replace(Spread.of(*passes), median=min(passes))  # the fastest counts: a bound
    record('coco_c_speed', [
        Comparison(*what, 'time', SECONDS, Spread.of(whole), PEER, Spread.of(slow)),
        Comparison(*what, 'time', SECONDS, Spread.of(whole), 'as many clean passes', clean, True),
        *mean_precisions(names, table, bgr, mmdet, what)], quick=args.quick or args.aside)


if __name__ == '__main__':
    main()
