"""`python -m edgepin_training …` is the command `edgepin …`, for launchers that take a module: `torchrun -m`."""

from edgepin._cli.main import main

if __name__ == "__main__":
    main(prog_name="edgepin")
