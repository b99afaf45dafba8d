"""Test a detector. `--help` lists the flags."""

from pit_downstream.cli.test import main

if __name__ == '__main__':
    main()
