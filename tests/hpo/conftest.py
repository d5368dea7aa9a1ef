"""Tuning needs torch; what needs scikit-learn, too, says so itself."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
