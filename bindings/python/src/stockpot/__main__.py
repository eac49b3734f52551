"""`python -m stockpot` is the command `stockpot`."""

from .cli import main

if __name__ == "__main__":
    main()
