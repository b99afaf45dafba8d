"""Measure a classifier on shifted datasets. `--help` lists the flags."""

from pit_downstream.cli.eval_shifts import main

if __name__ == '__main__':
    main()
