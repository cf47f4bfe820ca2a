"""Which layer of the untrained student knows most of what belongs together: a pair head on the states behind each, on validation.

    python launch.py --config=configs/probe.py --config.data.source=bundlerec --config.data.root=DIR \\
        --config.data.domains="('electronic','clothing')"

No training, no test sessions. `:smoke` runs in seconds.
"""

from ml_collections.config_dict import create

from configs import sft_plain
from configs.base import variant


def get_config(arg: str = ""):
    config = variant(sft_plain.get_config(), arg)
    config.name = config.name.replace("sft_plain", "probe")
    config.job = "probe"
    config.eval.orders = 1
    config.probe = create(layers=(3, 6, 9, 12, 18, 24, 30))  # the states behind so many layers
    if arg == "smoke":
        config.probe.layers = (1, 2)
    return config
