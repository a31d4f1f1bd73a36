"""`python -m examples.orrery`: the live orrery."""

from .live import main

if __name__ == "__main__":
    main()
