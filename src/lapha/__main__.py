"""``python -m lapha``."""

from lapha.cli import main

if __name__ == "__main__":
    main()
