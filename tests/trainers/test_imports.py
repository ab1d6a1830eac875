"""Other people's trainers are not needed and not imported."""

from __future__ import annotations

import subprocess
import sys

USES = """
import sys
import buttress as bt
bt.ReinforcedDataset, bt.train, bt.reinforce, bt.evaluate
print([name for name in ("pytorch_lightning", "lightning", "transformers") if name in sys.modules])
"""


def test_the_package_imports_no_trainer():
    done = subprocess.run([sys.executable, "-c", USES], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
