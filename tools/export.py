"""Export a backbone to ONNX. `--help` lists the flags."""

from pit_downstream.cli.export import main

if __name__ == '__main__':
    main()
