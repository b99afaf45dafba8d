"""Time and peak memory of one training step of a detector at full COCO size, batch 1, from random weights.

python -m speed.training_step [CONFIG ...] [--shape 800 1333] [--threads 2] [--quick]

Every config runs in a separate process, so that the peak (resident memory on a CPU, torch's allocation on a GPU)
belongs to it alone, including libraries. A step is forward, backward and AdamW.
"""

import argparse
import json
import time

import torch

from speed.runner import DEVICE, bench_parser, peak_bytes, record, run_separately
from speed.table import GIB, SECONDS, Comparison, Spread

CONFIGS = ['configs/mask_rcnn_deepvit_s.py', 'configs/mask_rcnn_vit_s.py', 'configs/mask_rcnn_pit_s.py']


def build(config: str):
    """Build the detector of a config in training mode and its optimizer wrapper, without downloads."""
    import pit_downstream.det  # noqa: F401
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet')
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train().to(DEVICE), build_optim_wrapper(model, cfg.optim_wrapper)


def one_image(height: int, width: int) -> dict:
    """Return noise with twenty objects, boxes and masks, in the format of mmdet's data loader."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(20, 2, generator=generator) * torch.tensor([width - 300., height - 300.])
    boxes = torch.cat((corners, corners + 20 + 270 * torch.rand(20, 2, generator=generator)), dim=1)
    masks = torch.zeros(20, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(gt_instances=InstanceData(
        bboxes=boxes, labels=torch.arange(20), masks=BitmapMasks(masks.numpy(), height, width)))
    sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1., 1.), img_id=1))
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
    return dict(inputs=[image], data_samples=[sample])


def measure(config: str, height: int, width: int, steps: int = 2) -> dict:
    """Train `steps` steps in this process and time the last one. Return seconds, bytes and loss."""
    torch.manual_seed(0)
    model, optimizer = build(config)
    for _ in range(steps):
        start = time.perf_counter()
        loss = model.train_step(one_image(height, width), optimizer)['loss'].item()
        seconds = time.perf_counter() - start
    return {'seconds': seconds, 'bytes': peak_bytes(), 'loss': loss}


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument('configs', nargs='*', default=CONFIGS)
    parser.add_argument('--shape', nargs=2, type=int, default=[800, 1333], metavar=('H', 'W'))
    parser.add_argument('--measure', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.measure:
        print(json.dumps(measure(args.configs[0], *args.shape)))
        return
    if args.quick:
        args.configs, args.shape = CONFIGS[-1:], (160, 224)
    for config in args.configs:
        found = run_separately('training_step', config, '--shape', *args.shape, '--threads', args.threads, '--measure')
        what = (config, f'{args.shape[0]} x {args.shape[1]}')
        record('training_step', [
            Comparison(*what, 'time', SECONDS, Spread.of(found['seconds'])),
            Comparison(*what, 'memory', GIB, Spread.of(found['bytes'] / 2 ** 30)),
            Comparison(*what, 'loss', '', Spread.of(found['loss']))], quick=args.quick)


if __name__ == '__main__':
    main()
