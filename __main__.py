"""The command `python -m implicitly`, which is that of `implicitly`."""

from .cli import main

if __name__ == "__main__":
    main()
