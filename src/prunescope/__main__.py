"""Run the command `prunescope` as `python -m prunescope`."""

from prunescope.cli import main

main()
