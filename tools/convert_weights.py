"""Convert a checkpoint to plain weights. `--help` lists the flags."""

from pit_downstream.cli.convert_weights import main

if __name__ == '__main__':
    main()
