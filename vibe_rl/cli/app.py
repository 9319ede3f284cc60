"""The verbs of the command line."""

from tyro.extras import SubcommandApp

from vibe_rl.cli.plot import plot
from vibe_rl.cli.runs import runs
from vibe_rl.cli.show import show
from vibe_rl.cli.sync import sync
from vibe_rl.cli.tail import tail
from vibe_rl.cli.train import train
from vibe_rl.cli.watch import watch

app = SubcommandApp()
app.command(train, name="train", help="Train an agent, and log the run while it goes on.")
app.command(name="runs")(runs)
app.command(name="show")(show)
app.command(name="tail")(tail)
app.command(name="watch")(watch)
app.command(name="plot")(plot)
app.command(name="sync")(sync)
