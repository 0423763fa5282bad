"""`python -m amasam`."""

from amasam.cli import main

if __name__ == "__main__":
    main()
