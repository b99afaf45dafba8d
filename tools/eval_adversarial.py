"""Measure a classifier or a detector under adversarial attacks. `--help` lists the flags."""

from pit_downstream.cli.eval_adversarial import main

if __name__ == '__main__':
    main()
