"""melvoc turns mel spectrograms into sound."""

from __future__ import annotations

__version__ = "0.1.0"
