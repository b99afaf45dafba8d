"""Export the backbone of a detector, or a backbone by name, to ONNX with dynamic batch size, height and width.

pit-downstream export --model retinanet_pit_ti --weights work_dirs/demo --output pit_ti.onnx
pit-downstream export --model pit_s --weights pit_s.pth --output pit_s.onnx
If onnxruntime is installed, the file is compared with the backbone at two sizes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pit_downstream.api import choose_model
from pit_downstream.cli import flags, models
from pit_downstream.cli.argument_types import int_in_range
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.errors import InputError
from pit_downstream.utils.spec import Spec

SIZES = [(256, 320), (224, 416)]


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    add = parser.groups['model'].add_argument
    add('--model', required=True, metavar='NAME', help="a backbone, such as pit_s, deepvit_s, vit_s or "
        f"'pit_s(out_indices=(2,))'; or {flags.DETECTOR}")
    add('--weights', help="of a backbone: a checkpoint file of a classifier or a detector, pretrained or random "
        f'(default: pretrained); of a detector: {flags.DETECTOR_WEIGHTS}')
    flags.add_config_options(parser)
    parser.groups['data'].add_argument('--bundled', action='store_true', help='use the bundled dataset for the '
                                       'classes of a detector (default: off)')
    parser.groups['data'].add_argument('--data', metavar='DIR', help="folder of a detector's dataset (default: the "
                                       "config's)")
    parser.groups['output'].add_argument('--output', default='backbone.onnx', metavar='FILE', help='ONNX file to write '
                                         '(default: %(default)s)')
    parser.groups['output'].add_argument('--opset', type=int_in_range(1), default=20, metavar='N', help='ONNX opset '
                                         '(default: %(default)s)')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        parser = make_parser()
        args = parser.parse_args(argv)
        backbone = load_backbone(parser, args)
        from pit_downstream.backbones.export import compare_with_onnxruntime, export_onnx
        export_onnx(backbone, args.output, opset=args.opset)
        maps = ', '.join(f'{channels} channels at stride {stride}'
                         for channels, stride in zip(backbone.out_channels, backbone.out_strides, strict=True))
        print(f'{args.output}: opset {args.opset}, images (B, 3, H, W) -> {maps}; H and W are multiples of 32')
        for (height, width), worst in compare_with_onnxruntime(backbone, args.output, SIZES).items():
            print(f'at {height}x{width} onnxruntime differs from the backbone by {worst:.1e} of the largest value')


def load_backbone(parser: argparse.ArgumentParser, args: argparse.Namespace):
    """Build the backbone that the flags select, with its weights. Raises InputError if there is none."""
    from pit_downstream.backbones.export import require_export
    from pit_downstream.utils.path_checks import require_writable_file
    require_writable_file(args.output, '--output')
    require_export(args.opset)
    task, name, weights = choose_model(args.model, args.weights, 'classifier', 'detector')
    if task == 'classifier':
        flags.reject_flags(parser, args, ('--bundled', '--data', '--cfg-options'), 'applies to the config of a '
                           f"detector, got the backbone {args.model}, whose arguments are in brackets: "
                           "'pit_s(out_indices=(2,))'")
        return _load_by_name(name, weights or 'pretrained')
    from pit_downstream.backbones.multi_scale import DetectionBackbone
    from pit_downstream.det.inputs import find_weights, read_detector_config
    from pit_downstream.det.predictor import build_detector
    cfg = read_detector_config(name, **models.get_data_options(args))
    detector = build_detector(cfg, find_weights(str(weights)), config=Path(name).stem)
    backbone = detector.model.backbone
    if not isinstance(backbone, DetectionBackbone):
        raise InputError(f'the backbone must be a PiT or a DeepViT, got {type(backbone).__name__}. Export it with its '
                         'own tools.')
    return backbone


def _load_by_name(name: str, weights: str):
    from pit_downstream.backbones import DeepViT, PiT, deepvit, pit
    from pit_downstream.evaluation.models import WEIGHTS, build_classifier, build_module, read_weights
    spec = Spec.parse(name)
    classes = {f'pit_{arch}': (PiT, arch) for arch in pit.ARCHS} | {
        arch if arch.startswith('vit_') else f'deepvit_{arch}': (DeepViT, arch) for arch in deepvit.ARCHS}
    models.require_name(spec.name, list(classes), 'backbone')
    if weights not in WEIGHTS and not Path(weights).is_file():
        raise InputError(f'no file with weights: {weights}. Pass a file, or one of {", ".join(WEIGHTS)}.')
    backbone_class, arch = classes[spec.name]
    arguments: dict[str, Any] = dict(spec.kwargs)
    backbone = build_module(spec, lambda: backbone_class(arch, **arguments))
    if weights in WEIGHTS:  # the same as in every other tool, including random ones
        name = f'{spec.name}_distilled' if spec.get('distilled') else spec.name
        state = build_classifier(name, weights=weights).model.state_dict()
    else:
        state = read_weights(weights)
    backbone.load_state_dict(state)
    return backbone
