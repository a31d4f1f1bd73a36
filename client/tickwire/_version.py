"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version


def _installed_version() -> str:
    try:
        return version("tickwire")
    except PackageNotFoundError:
        return "0.0.0+uninstalled"


__version__ = _installed_version()
