"""`deployc build` with one more builder.

The engine itself is found by the entry point of ``deployc.engines``; builders are the modules of
``compiler.engines``, so their folder is added to that package's path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import compiler.engines
from specs.cli import main

compiler.engines.__path__.append(str(Path(__file__).parent / "sleeping_builders"))

if __name__ == "__main__":
    sys.argv[0] = "deployc"
    main()
