"""State of the active samples of a search. An attack adds its own tensors in a subclass of `SearchState`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pit_downstream.attacks.objective import LossEvaluation

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(kw_only=True)
class TensorRows:
    """Base class of dataclasses whose fields are tensors (n, ...), other TensorRows of n rows, or None if not used."""

    def select(self, rows: Tensor) -> 'Self':
        """Return the rows with these indices (k,)."""
        return type(self)(**{name: None if value is None else _select(value, rows)
                             for name, value in vars(self).items()})

    @classmethod
    def concatenate(cls, parts: 'Sequence[Self]') -> 'Self':
        """Return the rows of all parts. An optional field is None in all parts or in none of them."""
        values: dict[str, Any] = {}
        for name, first in vars(parts[0]).items():
            columns = [getattr(part, name) for part in parts]
            if first is None:
                values[name] = None
            else:
                values[name] = type(first).concatenate(columns) if isinstance(first, TensorRows) else torch.cat(columns)
        return cls(**values)


def _select(value: Tensor | TensorRows, rows: Tensor) -> Tensor | TensorRows:
    return value.select(rows) if isinstance(value, TensorRows) else value[rows]


@dataclass(kw_only=True)
class ActiveSamples(TensorRows):
    """Rows before their first step.

    row: (n,), index of the image in the batch. variant: (n,), number of the search from this image: a restart, or a
    target class. clean: (n, 3, H, W).
    """

    row: Tensor
    variant: Tensor
    clean: Tensor


@dataclass(kw_only=True)
class SearchState(TensorRows):
    """State of every search.

    adversarial: (n, 3, H, W), result of the search so far. fooled: bool (n,), whether it fools. loss: (n,), ranks the
    results of searches that do not fool. last_fooling: (n, 3, H, W), the last result that fooled. The search engine
    sets it, except with run_to_end.
    """

    samples: ActiveSamples
    adversarial: Tensor
    fooled: Tensor
    loss: Tensor
    last_fooling: Tensor | None = None

    @property
    def row(self) -> Tensor:
        return self.samples.row

    @property
    def clean(self) -> Tensor:
        return self.samples.clean


@dataclass(kw_only=True)
class GradientState(SearchState):
    """State of a search whose result is the current image. gradient: (n, 3, H, W), of the loss at this image."""

    gradient: Tensor

    def move(self, images: Tensor, result: LossEvaluation) -> None:
        """Set the current images and their evaluation. The gradient stays if it was not requested."""
        self.adversarial, self.fooled, self.loss = images, result.fooled, result.loss
        if result.gradient is not None:
            self.gradient = result.gradient
