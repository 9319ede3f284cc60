"""Which environment a run may go on in."""

import jax
import pytest
from endless import Endless
from flax import struct
from gymnax.environments.environment import EnvParams

from vibe_rl.run_dir import RunDir
from vibe_rl.runner import PPOConfig
from vibe_rl.runner.environment import make_env
from vibe_rl.runner.run_settings import check_settings, save_settings

CONFIG = PPOConfig(env_id="Endless")


class Other(Endless):
    """Of another class, though it goes by the same name."""

    name = "Endless"


@struct.dataclass
class Keyed(EnvParams):
    """Parameters that no JSON can hold."""

    key: jax.Array | None = None


@pytest.fixture
def run(tmp_path):
    run = RunDir("saved", tmp_path)
    run.checkpoint_dir(10).mkdir()
    return run


def test_the_same_environment_goes_on_and_another_one_is_refused(run):
    limited = Endless().default_params.replace(max_steps_in_episode=float("nan"))
    save_settings(run, CONFIG, make_env((Endless(), limited), 1))
    check_settings(run, CONFIG, make_env((Endless(), limited), 8))
    with pytest.raises(ValueError, match=r"env\.params\.max_steps_in_episode=nan, not 5: .* `env`"):
        check_settings(run, CONFIG, make_env(Endless(), 1))
    with pytest.raises(ValueError, match=r"env\.class='endless\.Endless', not '.*Other': .* `env`"):
        check_settings(run, CONFIG, make_env((Other(), limited), 1))


def test_parameters_that_cannot_be_saved_are_known_by_their_class(run):
    keyed = make_env((Endless(), Keyed(5, jax.random.key(0))), 1)
    save_settings(run, CONFIG, keyed)
    check_settings(run, CONFIG, keyed)
    with pytest.raises(ValueError, match=r"env\.params='Keyed', not \{'max_steps"):
        check_settings(run, CONFIG, make_env(Endless(), 1))


def test_a_run_of_an_earlier_version_has_saved_no_environment(run):
    run.save_config(CONFIG)
    check_settings(run, CONFIG, make_env(Endless(), 1))
