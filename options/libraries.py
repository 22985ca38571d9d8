"""Libraries that some parts need: a missing or broken one is an error that says how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LibraryError(ImportError):
    """A library that a part of the package needs cannot be imported."""


@contextmanager
def needs(library: str, what: str) -> Iterator[None]:
    """Context of an import, which says what needs the library and how to install it.

    Args:
        library: Name of the library, also for pip.
        what: Name of the part that needs it.

    Raises:
        LibraryError: The library, or one that it needs, is not installed or is broken.

    Examples:
        >>> with needs("no_such_library", "A solver"):
        ...     import no_such_library
        Traceback (most recent call last):
        ...
        implicitly.options.libraries.LibraryError: A solver needs no_such_library, which is not installed:
        pip install no_such_library
    """
    try:
        yield
    except LibraryError as error:  # Raised by a part that this one needs.
        raise LibraryError(f"{what}: {error}", name=error.name) from error
    except ModuleNotFoundError as error:
        absent = (error.name or library).partition(".")[0]
        raise LibraryError(
            f"{what} needs {absent}, which is not installed: pip install {absent}", name=absent
        ) from error
    # A library that does not fit its own dependencies, or the system, may raise any of these.
    except (ImportError, AttributeError, OSError, RuntimeError, SystemError) as error:
        raise LibraryError(
            f"{what} needs {library}, which is installed and cannot be imported "
            f"({type(error).__name__}: {error}): pip install --force-reinstall {library}",
            name=library,
        ) from error
