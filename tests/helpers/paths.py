"""Folders that tests read: the checkout, and real data where there is some."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("BLIP2VQA_DATA", ROOT.parent / "shared" / "data"))
"""Real data; tests that read it are skipped where it is absent."""
