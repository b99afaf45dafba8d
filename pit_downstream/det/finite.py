"""Detection of NaN in a detector. mmdet filters NaN, so that the image looks like an image without objects."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from pit_downstream.utils.errors import InputError
from pit_downstream.utils.protocols import NonFiniteOutputs
from pit_downstream.evaluation.distributed import raise_on_all_ranks, is_distributed


def require_finite_weights(model: nn.Module, source: object) -> None:
    """Raise InputError unless all parameters and BatchNorm statistics are finite. source: name of the weights."""
    norms = [(f'{name}.{key}', buffer) for name, module in model.named_modules()
             if isinstance(module, nn.modules.batchnorm._NormBase) for key, buffer in module.named_buffers()]
    bad = [name for name, value in (*model.named_parameters(), *norms) if not value.isfinite().all()]
    if bad:
        raise InputError(f'Weights are not finite: {len(bad)} tensors of {source}, among them {bad[0]}. Take another '
                         'checkpoint.')


class NanWatch:
    """Forward hooks that detect NaN in the outputs of a detector's heads, including NaN from backbone or neck."""

    def __init__(self, model: nn.Module):
        self._found: Tensor | None = None
        for head in _find_heads(model):
            head.register_forward_hook(self._check_outputs)

    def pop(self) -> bool:
        """Return whether there was NaN since the last call. This synchronizes with the GPU."""
        found, self._found = self._found, None
        return found is not None and bool(found)

    def _check_outputs(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        for tensor in _iterate_tensors(outputs):
            if tensor.is_floating_point() and tensor.numel():
                nan = tensor.detach().amax().isnan()  # propagates NaN
                self._found = nan if self._found is None else self._found | nan


@HOOKS.register_module()
class FiniteDetectorHook(Hook):
    """Hook of tools/test.py that rejects non-finite weights and images for which the detector returns NaN."""

    def before_test(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        require_finite_weights(model, runner._load_from)
        self._watch = NanWatch(model)
        self._refusal: NonFiniteOutputs | None = None

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence[DetDataSample] | None = None):
        if self._watch.pop() and self._refusal is None:
            names = ' or '.join(sample.img_path for sample in outputs or ())
            self._refusal = NonFiniteOutputs(names)
            if not is_distributed():
                raise self._refusal

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        raise_on_all_ranks(self._refusal)


def _find_heads(model: nn.Module) -> list[nn.Module]:
    """Return modules named as heads and those in lists of heads; without any, all children of the model."""
    heads = [module for name, module in model.named_modules() if name.rpartition('.')[2].endswith('head')]
    heads = [part for head in heads for part in (head if isinstance(head, nn.ModuleList) else [head])]
    return heads or list(model.children())


def _iterate_tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (list, tuple, dict)):
        for part in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _iterate_tensors(part)
