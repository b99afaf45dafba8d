"""Flags of the tool that exports backbones, and the backbone built from them."""

import argparse
from pathlib import Path

from pit_downstream.cli.detectors import config_parser
from pit_downstream.cli.errors import require_name
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.utils.errors import InputError


def export_parser(description: str) -> argparse.ArgumentParser:
    parser = config_parser(description, config="config file of a detector; or a backbone, such as pit_s, deepvit_s, "
                           "vit_s or 'pit_s(out_indices=(2,))'")
    parser.set_defaults(launcher='none', local_rank=0, work_dir=None)
    add = parser.add_argument
    add('checkpoint', help="a detector's: file, or a work dir for its latest; a backbone's: any classifier's or "
        "detector's, or pretrained; or random")
    add('--out', default='backbone.onnx', metavar='FILE', help='the file to write (default: %(default)s)')
    add('--opset', type=int_in_range(1), default=20, help='of ONNX (default: %(default)s)')
    return parser


def backbone(args: argparse.Namespace):
    """Build the backbone that the flags select, with its weights. Raises InputError if there is none."""
    from pit_downstream.utils.path_checks import require_file_to_write
    require_file_to_write(args.out, '--out')
    from pit_downstream.backbones.export import require_export
    require_export(args.opset)
    return _of_detector(args) if args.config.endswith('.py') else _by_name(args)


def _of_detector(args: argparse.Namespace):
    from pit_downstream.backbones.multi_scale import DetectionBackbone
    from pit_downstream.det import config_utils
    from pit_downstream.det.predictor import build_detector
    cfg = config_utils.read_config(args, loaders=())
    checkpoint = args.checkpoint if args.checkpoint == 'random' else config_utils.checkpoint_file(args.checkpoint)
    found = build_detector(cfg, checkpoint, config=Path(args.config).stem).model.backbone
    if not isinstance(found, DetectionBackbone):
        raise InputError(f'expected a detector on PiT or DeepViT, got one on {type(found).__name__}; export that with '
                         'its own tools')
    return found


def _by_name(args: argparse.Namespace):
    from pit_downstream.backbones import DeepViT, PiT, deepvit, pit
    from pit_downstream.utils.spec import Spec
    from pit_downstream.evaluation.models import WEIGHTS, build_classifier, made, read_weights
    spec = Spec.parse(args.config)
    known = {f'pit_{arch}': (PiT, arch) for arch in pit.ARCHS} | {
        arch if arch.startswith('vit_') else f'deepvit_{arch}': (DeepViT, arch) for arch in deepvit.ARCHS}
    require_name(spec.name, list(known), 'backbone')
    given = [flag for flag in ('bundled', 'data', 'cfg_options') if getattr(args, flag)]
    if given:
        raise InputError(f'expected --{given[0].replace("_", "-")} with the config of a detector, got it with the '
                         f"backbone {args.config}; write its arguments in brackets: 'pit_s(out_indices=(2,))'")
    if args.checkpoint not in WEIGHTS and not Path(args.checkpoint).is_file():
        raise InputError(f'expected weights in {args.checkpoint}, found no such file; give a file, or one of '
                         f'{", ".join(WEIGHTS)}')
    kind, arch = known[spec.name]
    found = made(spec, lambda: kind(arch, **dict(spec.kwargs)))
    if args.checkpoint in WEIGHTS:  # the same as in every other tool, including random ones
        name = f'{spec.name}_distilled' if spec.get('distilled') else spec.name
        found.load_state_dict(build_classifier(name, weights=args.checkpoint).model.state_dict())
    else:
        found.load_state_dict(read_weights(args.checkpoint))
    return found
