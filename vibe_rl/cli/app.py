"""The verbs of the command line."""

from tyro.extras import SubcommandApp

from vibe_rl.cli import later
from vibe_rl.cli.plot import plot
from vibe_rl.cli.runs import runs
from vibe_rl.cli.show import show
from vibe_rl.cli.sync import sync
from vibe_rl.cli.tail import tail
from vibe_rl.cli.train import train
from vibe_rl.cli.watch import watch

app = SubcommandApp()
app.command(train, name="train", help="Train an agent, and log the run while it goes on.")
_OTHERS = (runs, show, tail, watch, plot, sync)
for verb in _OTHERS:
    app.command(name=verb.__name__)(later(verb))

VERBS = ("train", *(verb.__name__ for verb in _OTHERS))
