"""``python -m leakaudit`` is the same as ``leakaudit``."""

from leakaudit.cli.app import main

if __name__ == "__main__":
    main()
