"""`python -m vibe_rl.cli` is `vibe-rl`."""

import sys

from vibe_rl.cli import main

sys.exit(main())
