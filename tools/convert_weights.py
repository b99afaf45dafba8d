"""Write the PiT weights of any checkpoint (official, timm, DDP, EMA, detector) under the official names.

python tools/convert_weights.py SOURCE.pth OUT.pth --model pit_s
The source may also be timm://NAME, e.g. timm://pit_s_224.in1k, which downloads. What was taken and left is printed.
"""

import argparse

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', help='checkpoint file or timm://NAME')
    parser.add_argument('out', help='file to write: a plain state dict')
    parser.add_argument('--model', default='pit_s', help='pit_{ti,xs,s,b}[_distilled]')
    return parser.parse_args()


def main():
    args = parse_args()
    import timm
    import torch
    from mmengine.runner import CheckpointLoader

    import pit_downstream.det  # noqa: F401  loads without running code, and knows timm://
    from pit_downstream import backbones
    from pit_downstream.backbones.weights import convert_pit
    cli.require_name(args.model, [name for name in backbones.__all__ if name.startswith('pit_')], 'model')
    target = timm.create_model(args.model).state_dict()
    heads = [name for name in target if name.startswith(('norm.', 'head'))]
    state, report = convert_pit(CheckpointLoader.load_checkpoint(args.source, 'cpu'), target, optional=heads)
    torch.save(state, args.out)
    print(f'{args.out}: {report}')


if __name__ == '__main__':
    with cli.one_sentence():
        main()
