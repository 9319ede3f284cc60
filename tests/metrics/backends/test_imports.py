import subprocess
import sys


def imported_by(statements):
    heavy = ["jax", "wandb", "tensorboardX", "tensorboard", "torch", "google.protobuf", "rich"]
    script = f"import sys\n{statements}\nprint(*(name for name in {heavy} if name in sys.modules))"
    command = [sys.executable, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_the_logger_s_names_come_without_any_service_s_library():
    assert imported_by("from vibe_rl.metrics import *; MetricsLogger, WandbBackend") == []


def test_tensorboard_brings_no_jax_and_no_wandb(tmp_path):
    made = f"import vibe_rl.metrics; vibe_rl.metrics.TensorBoardBackend({str(tmp_path)!r}).close()"
    assert imported_by(made) == ["tensorboardX", "google.protobuf"]


def test_wandb_brings_no_jax_and_no_tensorboard(tmp_path):
    # As in the process of an isolated backend, where jax could grab the accelerator.
    settings = (
        f"mode='offline', dir={str(tmp_path)!r}, settings={{'silent': True}}, config={{'lr': 1}}"
    )
    made = f"import vibe_rl.metrics; vibe_rl.metrics.WandbBackend({settings}).close()"
    found = imported_by(made)
    assert "wandb" in found
    assert not {"jax", "tensorboardX", "tensorboard", "torch"} & set(found)
