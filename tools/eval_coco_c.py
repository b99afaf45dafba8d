"""Measure a detector on COCO-C. `--help` lists the flags."""

from pit_downstream.cli.eval_coco_c import main

if __name__ == '__main__':
    main()
