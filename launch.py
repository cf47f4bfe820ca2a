"""The one entry point: `python launch.py --config=configs/sft_rules.py [--workdir=DIR] [--config.FIELD=VALUE …]`."""

import errno
import os
import sys
import tempfile
import warnings
from difflib import get_close_matches
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

try:
    import jax
except ValueError as error:  # JAX checks most of its variables when it is imported
    given = " ".join(f"{name}={value}" for name, value in os.environ.items() if name.startswith("JAX_"))
    sys.exit(f"error: JAX cannot start as this shell asks ({given}): {error}. Correct or unset that variable")

from kdjax.benchmark import benchmark
from kdjax.errors import InputError
from kdjax.sources import cache_root
from kdjax.study import (
    check_place,
    default_workdir,
    export,
    follow,
    generate,
    mine,
    probe,
    read_flags,
    run_aicl,
    score_predictions,
    study,
)
from kdjax.study import run as run_experiment
from kdjax.training import check_backend, processes

JOBS = {
    "run": run_experiment,
    "generate": generate,
    "export": export,
    "study": study,
    "aicl": run_aicl,
    "probe": probe,
    "patterns": mine,
    "score": score_predictions,
    "benchmark": benchmark,
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
SHARED = ("run", "study")  # jobs that several processes can do together

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, a file in configs/; FILE:smoke is its short version.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run (default: runs/<config name>-<hash of the config>).")
COORDINATOR = flags.DEFINE_string("coordinator", "", "Of several processes: HOST:PORT of the first one.")
PROCESSES = flags.DEFINE_integer(
    "processes", 0, "How many processes there are; not needed on a TPU pod or under Slurm."
)
PROCESS = flags.DEFINE_integer("process", -1, "Which of them this is, from 0.")


def main(argv: list[str]) -> None:
    """Start the config's job. Compiled programs are kept on disk, so the next start is quicker."""
    if len(argv) > 1:
        raise InputError(f"unexpected arguments: {' '.join(argv[1:])}; fields are written --config.train.epochs=2")
    if CONFIG.value is None:
        raise InputError("name a config, as in --config=configs/sft_rules.py")
    config = CONFIG.value
    if config.job not in JOBS:
        raise InputError(f"config.job={config.job!r} is not a job; choose from {', '.join(JOBS)}")
    workdir = default_workdir(config) if WORKDIR.value is None else os.path.expanduser(WORKDIR.value)
    if not workdir:
        raise InputError("--workdir is empty; leave it out for the default, runs/<config name>-<hash>")
    check_environment()
    jax.config.update("jax_compilation_cache_dir", str(cache_root() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # there are many small ones
    processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    if processes.alone():
        work(config, workdir)
    elif config.job not in SHARED:
        raise InputError(f"config.job={config.job!r} is work for one process, and there are {jax.process_count()}")
    elif processes.is_first():
        lead(config, workdir)
    else:
        follow()


def check_environment() -> None:
    """Check this machine and the environment variables, before anything is read, asked or written.

    Raises:
        InputError: no folder for models or for temporary files, or JAX does not start as the variables ask.
    """
    cache_root()
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError(f"{error.strerror}; set TMPDIR to a folder that can be written to") from error
    jax.config.update(
        "jax_enable_x64", False
    )  # JAX_ENABLE_X64=1 widens some of the arrays, and programs of 32 bits refuse them
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a teacher may need the GPU, too
    check_backend()


def work(config, workdir: str) -> None:
    """Do the job. If there are several processes, only the first calls this: it alone writes to the folder."""
    check_place(workdir)
    JOBS[config.job](config, workdir)


def lead(config, workdir: str) -> None:
    """Do the job as the first of several processes, and tell the others when and why it ends."""
    try:
        work(config, workdir)
    except BaseException as error:
        processes.stop(str(error) or type(error).__name__)
        raise
    processes.stop()


def check_config_file(argv: list[str]) -> None:
    """Raise InputError if the file of --config cannot be opened; names the nearest of configs/, as a path from here."""
    for flag, following in zip(argv, [*argv[1:], ""], strict=True):
        name, given, path = flag.partition("=")
        if name in ("--config", "-config"):
            file = (path if given else following).partition(":")[0]
            try:
                open(file, "rb").close()
            except (OSError, ValueError) as error:
                there = {found.stem: found for found in Path(__file__).resolve().parent.glob("configs/*.py")}
                nearest = get_close_matches(Path(file).stem, there, n=1)
                hint = f"; did you mean --config={os.path.relpath(there[nearest[0]])}?" if nearest else ""
                raise InputError(f"--config={file}: {getattr(error, 'strerror', error)}{hint}") from error


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser; an unknown field of the config, or a file that is not there, becomes an error that names the nearest one."""
    try:
        check_config_file(argv)
        rest = flags.FLAGS(argv)
        if CONFIG.present:
            CONFIG.value.get("job")  # a file that cannot be read is an error only when it is used
            read_flags(CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]))
    except (AttributeError, KeyError) as error:  # of ml_collections: a KeyError, inside another one where it lies deep
        inner = error.args[0].args[0] if isinstance(error.args[0], KeyError) else str(error.args[0])
        field, _, hint = inner.partition("\n")
        where = [arg for arg in argv if field.strip("'") in arg.partition("=")[0].split(".")]
        raise InputError(f"{' '.join(where)}: the config has no field {field}. {hint}".strip()) from error
    except InputError:
        raise
    except (OSError, SyntaxError, TypeError, ValueError, flags.Error) as error:
        message, raised_inside, trace = str(error).strip().partition(f"{InputError.__name__}: ")
        raise InputError(trace if raised_inside else message) from error  # ml_collections shows its whole stack
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # app.run would make it info, at which Orbax tells each of its steps
    return rest


if __name__ == "__main__":
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a locale without ⟦ and → is no reason to end
    warnings.filterwarnings("ignore", "the load_module")  # ml_collections loads the config file in the old way
    try:
        app.run(main, flags_parser=parse_flags)
    except (InputError, FloatingPointError) as error:  # the latter: a loss that is not finite
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        sys.exit(f"error: {error}; put that right, and the same command goes on from what is finished")
