"""Draw the detections in an image. `--help` lists the flags."""

from pit_downstream.cli.show_detections import main

if __name__ == '__main__':
    main()
