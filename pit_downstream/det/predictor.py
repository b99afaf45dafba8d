"""Predictor for mmdet detectors: from images in [0, 1] to detections, with all preprocessing inside."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from pit_downstream.utils.checkpoints import hash_tensors, extract_parameters
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import Batch, Detections, Instances, NonFiniteOutputs, Outputs, Sample
from pit_downstream.utils.digests import hash_text
from pit_downstream.utils.spec import Spec
from pit_downstream.utils.rng import compute_seed
from pit_downstream.training.safe_loading import load, require_weights
from pit_downstream.det.checkpoint_classes import check_class_names
from pit_downstream.det.classes import read_data_classes
from pit_downstream.det.data_checks import iterate_dicts
from pit_downstream.det.finite import NanWatch, require_finite_weights
from pit_downstream.attacks.objective import LOSS_TYPES
from pit_downstream.det.annotations import get_image_region, set_ground_truth, to_instances
from pit_downstream.det.candidates import count_classes, disable_score_thresholds, make_target_logits
from pit_downstream.det.losses import compute_loss, fix_batch_norm_backward, needs_masks
from pit_downstream.det.pipeline import TestPipeline
from pit_downstream.det.logging_utils import suppress_output
from pit_downstream.det.samples import get_metric_settings, test_pipeline

RANDOM = 'random'


class DetectorPredictor:
    """Any detector of mmdet in evaluation mode, with the test pipeline of its config. Implements `Detector`.

    A raw sample is an image at full size with its information from the dataset (`DetectionSamples`). In a batch it is
    the image at network size, RGB in [0, 1], and its target is the DetDataSample that the pipeline packed: img_id,
    ori_shape, scale_factor ... and gt_instances if the pipeline loads them. `valid` is False in the padding of the
    pipeline and of the batch. The model's data_preprocessor converts the color order, normalizes and pads `images` in
    torch, so that gradients reach the pixels.

    Images of different sizes share a Batch but no forward pass, since padding one to the size of another would change
    its detections. Results therefore equal those of the config's test with batch size 1, and with equal sizes those of
    any batch size.
    name: Spec text of records. seed: of the samplers in the losses. The device is the model's.
    """

    loss_types = LOSS_TYPES

    def __init__(self, model: nn.Module, pipeline: TestPipeline, *, name: str, seed: int = 0):
        self.model, self.pipeline, self.name = model.eval().requires_grad_(False), pipeline, name
        self.seed = seed
        fix_batch_norm_backward(self.model)
        self._nan = NanWatch(self.model)
        self.device = next(tensor.device for tensor in model.parameters())
        with torch.inference_mode(False):  # gradients pass through the product
            self._white = torch.tensor(255., device=self.device)  # a GPU divides exactly by a tensor, not by a number

    def collate(self, samples: Sequence[Sample], images: Tensor | None = None) -> Batch:
        """Run all transforms of the config's test pipeline on the raw images."""
        packed = [self.pipeline.pack(sample.image, sample.target) for sample in samples]
        sides = [max(inputs.shape[axis] for inputs, _ in packed) for axis in (1, 2)]
        levels = packed[0][0].new_zeros(len(packed), 3, *sides)
        valid = torch.zeros(len(packed), 1, *sides, dtype=torch.bool)
        for place, (inputs, data_sample) in enumerate(packed):
            height, width = inputs.shape[1:]
            levels[place, :, :height, :width] = inputs
            valid[place, 0][get_image_region(data_sample, height, width)] = True
            data_sample.set_metainfo({'network_shape': (height, width), 'instances': Instances(
                samples[place].target.get('instances', ()))})
        taken = tuple(replace(sample, target=target) for sample, (_, target) in zip(samples, packed, strict=True))
        return Batch(levels.to(self.device).float() / self._white, valid.to(self.device), taken)

    @property
    def num_classes(self) -> int:
        return count_classes(self.model)

    def loss(self, images: Tensor, batch: Batch, loss_type: str = 'all',
             ground_truth: Sequence[Instances] | None = None) -> Tensor:
        losses = []
        for row, sample in enumerate(batch.samples):
            instances = sample.target.instances if ground_truth is None else ground_truth[row]
            (_, data), = self.model_inputs(images[row:row + 1], batch.part([row]))
            set_ground_truth(data['data_samples'][0], instances, self.device,
                             masks=needs_masks(self.model, loss_type))
            losses.append(compute_loss(self.model, data, loss_type, seed=compute_seed(self.seed, sample.id, 'loss')))
        return torch.stack(losses)

    def detect(self, images: Tensor, batch: Batch, *, min_score: float) -> list[Instances]:
        return [to_instances(sample.pred_instances, min_score=min_score)
                for sample in self.predict(images, batch).predictions]

    def detect_candidates(self, images: Tensor, batch: Batch) -> list[Detections]:
        with disable_score_thresholds(self.model):
            predictions = [sample.pred_instances.cpu() for sample in self.predict(images, batch).predictions]
        return [Detections(one.bboxes, one.labels, one.scores) for one in predictions]

    def make_target_logits(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        (_, clean), = self.model_inputs(batch.images, batch)
        compute_logits = make_target_logits(self.model, clean)

        def compute_image_logits(images: Tensor) -> Tensor:
            (_, data), = self.model_inputs(images, batch)
            return compute_logits(data)
        return compute_image_logits

    @torch.no_grad()
    def predict(self, images: Tensor, batch: Batch, *, trace: bool = False) -> Outputs:
        """Return one DetDataSample per image, as mmdet's model does, with `pred_instances` in pixels of the raw image.

        Raises NonFiniteOutputs for NaN in the outputs of a head.
        """
        if trace:
            return self._trace_losses(images, batch)
        self._nan.pop()  # discard NaN of earlier losses
        found: list[DetDataSample | None] = [None] * len(images)
        for places, data in self.model_inputs(images, batch):
            for place, one in zip(places, self.model(**data, mode='predict'), strict=True):
                found[place] = one
            if self._nan.pop():
                for place in places if len(places) > 1 else ():
                    self.predict(images[place:place + 1], batch.part([place]))  # raises for the first image with NaN
                raise NonFiniteOutputs(batch.samples[places[0]].id)
        return Outputs(found)

    def model_inputs(self, images: Tensor, batch: Batch) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Yield, for every image size in the batch, the indices of its images and the model inputs.

        The inputs {'inputs', 'data_samples'} are normalized and padded to the model's divisor, without the padding of
        the batch. Differentiable in images.
        """
        sizes: dict[tuple[int, int], list[int]] = defaultdict(list)
        for place, sample in enumerate(batch.samples):
            sizes[sample.target.network_shape].append(place)
        preprocess = cast(nn.Module, self.model.data_preprocessor)
        for places in sizes.values():
            levels = [self.levels(images[place], batch.samples[place]) for place in places]
            turned = [one.flip(0) for one in levels] if self.pipeline.order == 'bgr' else levels
            fresh = [batch.samples[place].target.new() for place in places]  # mmdet writes into them
            yield places, preprocess({'inputs': turned, 'data_samples': fresh}, False)

    def levels(self, image: Tensor, sample: Sample) -> Tensor:
        """Convert an image (3, H, W) of a batch to the output of the pipeline: (3, h, w), levels 0..255, RGB."""
        height, width = sample.target.network_shape
        return image[:, :height, :width] * self._white

    def _trace_losses(self, images: Tensor, batch: Batch) -> Outputs:
        from pit_downstream.attention.trace import trace_attention
        if len({sample.target.network_shape for sample in batch.samples}) > 1:
            raise InputError('expected network images of one size to trace attention, got several; use batches of one')
        with trace_attention(cast(nn.Module, self.model.backbone)) as seen:
            return Outputs(self.predict(images, batch).predictions, seen)


def build_detector(cfg: Config, checkpoint: str | Path, *, config: str, device: str | torch.device = 'cpu',
                   seed: int = 0) -> DetectorPredictor:
    """Build the detector of `cfg` with the weights of a file, or 'random' ones drawn from `seed`.

    config: name of the config in records. Records also hold a digest of the loaded tensors, and one of the settings
    that change numbers: the model with its training settings, on which losses depend, its test pipeline, classes and
    evaluator.
    Raises InputError if the weights are of another model. Nothing in the file is executed.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model_cfg, pipeline = cfg.model.to_dict(), test_pipeline(cfg)
    with suppress_output():
        if checkpoint == RANDOM:
            model, label = _build_random(model_cfg, seed), RANDOM
        else:
            model = MODELS.build(ConfigDict(_drop_keys(model_cfg, 'init_cfg')))  # heads read it by attributes
            label = Path(checkpoint).name
            _load_weights(model, Path(checkpoint), read_data_classes(cfg, ('test_dataloader',)))
    require_finite_weights(model, checkpoint)
    content = json.dumps([_drop_keys(model_cfg, 'init_cfg'), pipeline, get_metric_settings(cfg)], sort_keys=True,
                         default=str)
    name = Spec.of(config, weights=f'{label}@{hash_tensors(model.state_dict())}', config=hash_text(content))
    return DetectorPredictor(model.to(device), TestPipeline(pipeline), name=str(name), seed=seed)


def _build_random(model_cfg: dict, seed: int) -> nn.Module:
    """Build a model with random initial weights and no pretrained parts."""
    for part in iterate_dicts(model_cfg):
        if isinstance(part.get('init_cfg'), dict) and part['init_cfg'].get('type') == 'Pretrained':
            part['init_cfg'] = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # only for the initial weights; the caller's state is restored
        model = MODELS.build(ConfigDict(model_cfg))
        model.init_weights()
    return model


def _load_weights(model: nn.Module, path: Path, classes: Sequence[str]) -> None:
    """Load every tensor of the model from the first entry of the checkpoint that has tensors.

    classes: of the data, which those in the checkpoint must equal.
    """
    checkpoint = load(path)
    state = extract_parameters(checkpoint)
    if not state:
        raise InputError(f'the checkpoint has no tensors: {path}. Pass a file with a state dict.')
    require_weights(model, state, path)
    check_class_names(checkpoint, classes, str(path))
    for name in [name for name in state if name.startswith('module.')]:  # saved by DistributedDataParallel
        state[name.removeprefix('module.')] = state.pop(name)
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise InputError(f'expected weights of the config in {path}, got other ones: '
                         f'{" ".join(str(error).split())[:300]}') from error
    if missing:
        raise InputError(f'expected weights of the config in {path}, in which {len(missing)} are missing of '
                         f'{len(model.state_dict())}: {", ".join(missing[:4])} ...; check config and checkpoint')


def _drop_keys(node: Any, *keys: str) -> Any:
    """Return a copy of nested dicts and lists without `keys` in any dict."""
    if isinstance(node, dict):
        return {key: _drop_keys(value, *keys) for key, value in node.items() if key not in keys}
    return type(node)(_drop_keys(item, *keys) for item in node) if isinstance(node, (list, tuple)) else node
