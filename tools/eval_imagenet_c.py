"""Measure a classifier on ImageNet-C. `--help` lists the flags."""

from pit_downstream.cli.eval_imagenet_c import main

if __name__ == '__main__':
    main()
