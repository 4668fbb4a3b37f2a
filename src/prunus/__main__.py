"""`python -m prunus` is `prunus`."""

from prunus.cli.main import main

if __name__ == "__main__":
    main()
