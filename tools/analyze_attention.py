"""Measure and draw the attention of a classifier. `--help` lists the flags."""

from pit_downstream.cli.analyze_attention import main

if __name__ == '__main__':
    main()
