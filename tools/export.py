"""Write the backbone of a detector, or a backbone by its name, as an ONNX file with dynamic height and width.

python tools/export.py configs/retinanet_pit_ti.py work_dirs/demo --out pit_ti.onnx
python tools/export.py pit_s pit_s.pth --out pit_s.onnx
If onnxruntime is installed, the file is compared with the backbone at two sizes.
"""

from pit_downstream import cli

SIZES = [(256, 320), (224, 416)]


def parse_args():
    return cli.export_parser(__doc__).parse_args()


def main():
    args = parse_args()
    backbone = cli.backbone(args)
    from pit_downstream.backbones.export import differences, export_onnx
    export_onnx(backbone, args.out, opset=args.opset)
    maps = ', '.join(f'{channels} channels at stride {stride}'
                     for channels, stride in zip(backbone.out_channels, backbone.out_strides))
    print(f'{args.out}: opset {args.opset}, images (B, 3, H, W) -> {maps}; H and W are multiples of 32')
    for (height, width), worst in differences(backbone, args.out, SIZES).items():
        print(f'at {height}x{width} onnxruntime differs from the backbone by {worst:.1e} of the largest value')


if __name__ == '__main__':
    with cli.report_errors():
        main()
