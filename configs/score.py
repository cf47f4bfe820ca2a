"""Score a file of predictions, of whatever system, against the official test sessions: the checker of docs/LEADERBOARD.md.

    python launch.py --config=configs/score.py --config.score.predictions=runs/<run>/predictions.jsonl --config.data.root=DIR

Several seeds of one system: their files with commas between them. One domain: `--config.data.domains="('electronic',)"`.
Without the data: `--config.data.source=` takes the truth from the file, and says so. The format of a row is in
kdjax/study/predictions.py. Seconds; nothing is trained and nothing is written.
"""

from ml_collections.config_dict import create

from configs.base import base, variant


def get_config(arg: str = ""):
    config = variant(base("score"), arg)
    config.job = "score"
    config.data.update(source="bundlerec", domains=("electronic", "clothing"))
    config.score = create(predictions="")  # a predictions.jsonl, or one per seed with commas between them
    return config
