"""Console script `pit-downstream TOOL`."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from pit_downstream import __version__

TOOLS = {
    'train': 'Train a detector.',
    'test': 'Test a detector.',
    'train_classifier': 'Train a classifier.',
    'evaluate': 'Evaluate a model in any benchmark.',
    'eval_imagenet_c': 'Evaluate a classifier on ImageNet-C.',
    'eval_coco_c': 'Evaluate a detector on COCO-C.',
    'eval_adversarial': 'Evaluate a classifier or a detector under adversarial attacks.',
    'eval_shifts': 'Evaluate a classifier on shifted datasets.',
    'analyze_attention': 'Measure and draw the attention of a classifier.',
    'train_patch': 'Train an adversarial patch against a detector.',
    'show_corruptions': 'Draw an image under all corruptions.',
    'show_detections': 'Draw the detections in an image.',
    'get_complexity': 'Print the cost of a model.',
    'convert_weights': 'Convert a checkpoint to a plain state dict.',
    'export': 'Export a backbone to ONNX.',
    'make_report': 'Create an HTML report of all results.',
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the tool that the first argument names, with dashes or underscores. Only that tool is imported."""
    tool, *rest = (sys.argv[1:] if argv is None else argv) or ['']
    name = tool.replace('-', '_')
    if name not in TOOLS:
        _make_parser().parse_args([tool, *rest] if tool else ['--help'])
        return
    sys.argv = [f'pit-downstream {tool}', *rest]  # the command in records and in --help
    importlib.import_module(f'pit_downstream.cli.{name}').main(rest)


def _make_parser() -> argparse.ArgumentParser:
    width = max(map(len, TOOLS)) + 2
    tools = '\n'.join(f'  {name.replace("_", "-"):{width}}{text}' for name, text in TOOLS.items())
    parser = argparse.ArgumentParser(
        'pit-downstream', formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f'tools:\n{tools}',
        description='PiT and DeepViT backbones for mmdet, and robustness evaluation. `pit-downstream TOOL --help` '
        'lists the flags of a tool.')
    parser.add_argument('tool', choices=[name.replace('_', '-') for name in TOOLS], metavar='TOOL')
    parser.add_argument('flags', nargs=argparse.REMAINDER, help='arguments of the tool')
    parser.add_argument('--version', action='version', version=__version__)
    return parser


if __name__ == '__main__':
    main()
