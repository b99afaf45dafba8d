"""Models that the flags of tools select."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from pit_downstream.cli.flags import check_outputs
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import quote


def load_detector(args: argparse.Namespace):
    """Return the detector that the flags select with its dataset (det.inputs.DetectorInputs)."""
    check_outputs(args)
    from pit_downstream import api
    _, config, weights = api.choose_model(args.model, args.weights, 'detector')
    from pit_downstream.det import inputs
    return inputs.load_detector(config, str(weights), limit=args.limit, device=args.device, seed=args.seed,
                                **get_data_options(args))


def get_data_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of det.inputs.read_detector_config from the flags of a tool, which may lack some."""
    return {name: getattr(args, name, default) for name, default in (
        ('data', None), ('images', None), ('bundled', False), ('cfg_options', None))}


def require_name(name: str, names: Sequence[str], noun: str) -> None:
    """Raise InputError with the nearest names unless `name` is one of `names`."""
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
        raise InputError(f'no {noun} named {quote(name)}; did you mean {", ".join(near)}?')
