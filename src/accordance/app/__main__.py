"""`python -m accordance.app`: what `accord` is, for launchers that start modules."""

from accordance.app.cli import main

if __name__ == "__main__":
    main()
