"""`deployc build` with one more builder: see ``bench/sleeping/build.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import compiler.engines
from specs.cli import main

compiler.engines.__path__.append(str(Path(__file__).parent / "trapped_builders"))

if __name__ == "__main__":
    sys.argv[0] = "deployc"
    main()
