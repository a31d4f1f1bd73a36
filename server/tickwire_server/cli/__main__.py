"""`python -m tickwire_server.cli` is `tickwire`."""

from tickwire_server.cli import main

if __name__ == "__main__":
    main()
