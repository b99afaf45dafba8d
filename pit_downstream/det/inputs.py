"""Detectors with the images, metric and batch size of their config."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pit_downstream.det import config_utils
from pit_downstream.det.full_resolution import OriginalSizePredictor
from pit_downstream.det.metric import CocoAP, VocAP, build_metric
from pit_downstream.det.predictor import DetectorPredictor, build_detector
from pit_downstream.det.samples import DetectionSamples, build_detection_samples
from pit_downstream.evaluation.distributed import init_distributed
from pit_downstream.training.launch import find_checkpoint
from pit_downstream.utils.errors import InputError


@dataclass(frozen=True)
class DetectorInputs:
    """A detector, its images, and the config that both are from."""

    predictor: DetectorPredictor
    samples: DetectionSamples
    cfg: Config

    @property
    def metric(self) -> CocoAP | VocAP:
        """Metric of the config's test_evaluator."""
        return build_metric(self.cfg, self.samples)

    @property
    def batch_size(self) -> int:
        """Batch size of the config's test_dataloader."""
        return self.cfg.test_dataloader.get('batch_size', 1)


def load_detector(config: str, weights: str, *, data: str | None = None, images: str | None = None,
                  bundled: bool = False, cfg_options: Mapping[str, Any] | None = None, limit: int | None = None,
                  resolution: str = 'network', device: str = 'auto', seed: int = 0) -> DetectorInputs:
    """Load a detector and its dataset, on this rank's device. Joins the process group of torchrun or Slurm.

    Args:
        config: See utils.config_paths.find_config.
        weights: Checkpoint file, work dir, or 'random'.
        data: Folder of the dataset, or a COCO annotation file with `images`.
        cfg_options: Settings that override those of the config.
        resolution: 'network', or 'original' to attack the images before their resize.
    """
    used = init_distributed(device)
    cfg = read_detector_config(config, data=data, images=images, bundled=bundled, cfg_options=cfg_options,
                               loaders=('test_dataloader',))
    checkpoint = find_weights(weights)
    samples = build_detection_samples(cfg, limit=limit)
    predictor = build_detector(cfg, checkpoint, config=Path(config).stem, device=used, seed=seed)
    return DetectorInputs(OriginalSizePredictor(predictor) if resolution == 'original' else predictor, samples, cfg)


def read_detector_config(config: str, *, data: str | None = None, images: str | None = None, bundled: bool = False,
                         cfg_options: Mapping[str, Any] | None = None, loaders: tuple[str, ...] = ()) -> Config:
    """Return the config of a detector with the dataset that the arguments select."""
    annotations = data if str(data or '').endswith('.json') else None
    if bool(annotations) != bool(images):
        raise InputError('an annotation file and its images are given together: --data FILE.json --images DIR. Pass '
                         'both, or the folder of a dataset.')
    return config_utils.read_config(argparse.Namespace(
        config=config, cfg_options=dict(cfg_options or {}), bundled=bundled, images=images,
        data=None if annotations else data, annotations=annotations, launcher='none', local_rank=0, work_dir=None),
        loaders=loaders)


def find_weights(weights: str) -> str | Path:
    """Return 'random', or the checkpoint file of a path or work dir."""
    return 'random' if weights == 'random' else find_checkpoint(weights)
