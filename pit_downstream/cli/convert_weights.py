"""Convert a checkpoint of a PiT, DeepViT or ViT (official, timm, DDP, EMA, detector) to a plain state dict.

pit-downstream convert-weights SOURCE.pth --model pit_s --output OUT.pth
pit-downstream convert-weights epoch_3.pth --model 'pit_ti(num_classes=10)' --average epoch_2.pth epoch_1.pth \\
    --output OUT.pth
SOURCE may be timm://NAME, such as timm://pit_s_224.in1k, which is downloaded. Prints the loaded and skipped weights.
"""

import io
from collections.abc import Sequence
from typing import Any

from pit_downstream.cli import flags, models
from pit_downstream.cli.errors import report_errors
from pit_downstream.utils.extras import require_extra


def make_parser() -> flags.ToolParser:
    parser = flags.ToolParser(__doc__)
    add = parser.groups['model'].add_argument
    add('source', metavar='SOURCE', help='checkpoint file or timm://NAME')
    add('--model', default='pit_s', metavar='NAME', help='pit_{ti,xs,s,b}[_distilled], deepvit_{16,24,32,s,l,l_384} or '
        'vit_{16,24,32,s}, with optional arguments in parentheses (default: %(default)s)')
    add('--average', nargs='+', default=[], metavar='FILE', help='checkpoints to average with SOURCE (default: none)')
    parser.groups['output'].add_argument('--output', required=True, metavar='FILE', help='file for the state '
                                         'dict')
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    with report_errors():
        args = make_parser().parse_args(argv)
        from pit_downstream.utils.path_checks import require_writable_file, write_atomic
        require_writable_file(args.output, '--output')
        require_extra('train')
        import timm
        import torch
        from mmengine.runner import CheckpointLoader

        from pit_downstream import backbones
        from pit_downstream.backbones.weights import DEEPVIT, PIT, average
        from pit_downstream.evaluation.models import build_module
        from pit_downstream.training import safe_loading
        from pit_downstream.utils.spec import Spec
        safe_loading.register()  # loads without running code, and supports timm://
        spec = Spec.parse(args.model)
        models.require_name(spec.name, [name for name in backbones.__all__ if name[0].islower()], 'model')
        arguments: dict[str, Any] = dict(spec.kwargs)
        model = build_module(spec, lambda: timm.create_model(spec.name, **arguments))
        target, depth = model.state_dict(), len(getattr(model, 'blocks', [])) or None
        heads = [name for name in target if name.startswith(('norm.', 'head'))]
        family = PIT if spec.name.startswith('pit_') else DEEPVIT
        converted = [family.convert(CheckpointLoader.load_checkpoint(source, 'cpu'), target, optional=heads,
                                    depth=depth) for source in (args.source, *args.average)]
        torch.save(average([state for state, _ in converted]), content := io.BytesIO())
        write_atomic(args.output, content.getbuffer())
        print(f'{args.output}: {"; ".join(dict.fromkeys(str(report) for _, report in converted))}')
