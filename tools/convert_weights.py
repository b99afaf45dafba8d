"""Write the weights of a PiT, DeepViT or ViT in any checkpoint (official, timm, DDP, EMA, detector) to a plain file.

python tools/convert_weights.py SOURCE.pth OUT.pth --model pit_s
The source may also be timm://NAME, e.g. timm://pit_s_224.in1k, which downloads. What was taken and left is printed.
"""

import argparse

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='checkpoint file or timm://NAME')
    parser.add_argument('out', help='file to write: a plain state dict')
    parser.add_argument('--model', default='pit_s',
                        help='pit_{ti,xs,s,b}[_distilled], deepvit_{16,24,32,s,l,l_384} or vit_{16,24,32,s}')
    return parser.parse_args()


def main():
    args = parse_args()
    import timm
    import torch
    from mmengine.runner import CheckpointLoader

    import pit_downstream.det  # noqa: F401  loads without running code, and knows timm://
    from pit_downstream import backbones
    from pit_downstream.backbones.weights import DEEPVIT, PIT
    cli.require_name(args.model, [name for name in backbones.__all__ if name[0].islower()], 'model')
    model = timm.create_model(args.model)
    target, depth = model.state_dict(), len(getattr(model, 'blocks', [])) or None
    heads = [name for name in target if name.startswith(('norm.', 'head'))]
    family = PIT if args.model.startswith('pit_') else DEEPVIT
    checkpoint = CheckpointLoader.load_checkpoint(args.source, 'cpu')
    state, report = family.convert(checkpoint, target, optional=heads, depth=depth)
    torch.save(state, args.out)
    print(f'{args.out}: {report}')


if __name__ == '__main__':
    with cli.one_sentence():
        main()
