"""`python -m wsipipe`."""

from wsipipe.cli.main import main

if __name__ == "__main__":
    main()
