"""`python -m prunescope` is the command `prunescope`."""

from prunescope.cli import main

main()
