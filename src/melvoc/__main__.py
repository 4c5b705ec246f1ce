"""`python -m melvoc`."""

from __future__ import annotations

import sys

from melvoc.cli import main

sys.exit(main())
