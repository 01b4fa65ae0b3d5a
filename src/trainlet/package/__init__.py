"""Self-contained folders of C sources that drop into a firmware project: plain, CMake, Arduino, …"""

from __future__ import annotations

from trainlet.package.formats import FORMATS, package_files
from trainlet.package.write import write_package

__all__ = ["FORMATS", "package_files", "write_package"]
