"""Print the cost of a model: parameters, MACs, FLOPs, activations, the share of each part, measured memory and time.

python tools/get_complexity.py pit_s [--shape 224 224]
python tools/get_complexity.py configs/retinanet_pit_s.py --shape 800 1333 --repeats 0
Weights are random: the costs do not depend on them. A classifier is counted without memory, on torch's meta device.
Not counted: pooling, interpolation, the sampling of deformable attention, and steps after a detector's heads.
"""

import json

from pit_downstream import cli
from pit_downstream.utils.path_checks import write_atomic


def parse_args():
    return cli.facts_parser(__doc__).parse_args()


def main():
    args = parse_args()
    facts = cli.facts(args)
    print(facts.as_text())
    if args.json:
        write_atomic(args.json, json.dumps(facts.as_dict(), indent=1) + '\n')


if __name__ == '__main__':
    with cli.report_errors():
        main()
