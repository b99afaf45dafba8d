"""Write the weights of a PiT, DeepViT or ViT in any checkpoint (official, timm, DDP, EMA, detector) to a plain file.

python tools/convert_weights.py SOURCE.pth OUT.pth --model pit_s
python tools/convert_weights.py epoch_3.pth OUT.pth --model 'pit_ti(num_classes=10)' --average epoch_2.pth epoch_1.pth
The source may also be timm://NAME, e.g. timm://pit_s_224.in1k, which downloads. Prints the loaded and skipped weights.
"""

import argparse
import io

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='checkpoint file or timm://NAME')
    parser.add_argument('out', help='file to write: a plain state dict')
    parser.add_argument('--model', default='pit_s', help='pit_{ti,xs,s,b}[_distilled], deepvit_{16,24,32,s,l,l_384} or '
                        'vit_{16,24,32,s}, arguments in brackets')
    parser.add_argument('--average', nargs='+', default=[], metavar='FILE', help='write the mean of source and these')
    return parser.parse_args()


def main():
    args = parse_args()
    import timm
    import torch
    from mmengine.runner import CheckpointLoader

    from pit_downstream import backbones
    from pit_downstream.backbones.weights import DEEPVIT, PIT, average
    from pit_downstream.utils import spec
    from pit_downstream.utils import path_checks
    from pit_downstream.evaluation.models import made
    from pit_downstream.training import safe_loading as checkpoint
    checkpoint.register()  # loads without running code, and supports timm://
    path_checks.require_file_to_write(args.out, 'OUT')
    named = spec.Spec.parse(args.model)
    cli.require_name(named.name, [name for name in backbones.__all__ if name[0].islower()], 'model')
    model = made(named, lambda: timm.create_model(named.name, **dict(named.kwargs)))
    target, depth = model.state_dict(), len(getattr(model, 'blocks', [])) or None
    heads = [name for name in target if name.startswith(('norm.', 'head'))]
    family = PIT if named.name.startswith('pit_') else DEEPVIT
    found = [family.convert(CheckpointLoader.load_checkpoint(source, 'cpu'), target, optional=heads, depth=depth)
             for source in (args.source, *args.average)]
    torch.save(average([state for state, _ in found]), content := io.BytesIO())
    path_checks.write_atomic(args.out, content.getbuffer())
    print(f'{args.out}: {"; ".join(dict.fromkeys(str(report) for _, report in found))}')


if __name__ == '__main__':
    with cli.report_errors():
        main()
