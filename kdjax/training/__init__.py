"""Training: batches, loss, step, checkpoints, loop."""

from kdjax.training.batches import Rows, bucket_edges, lay_out, plan_groups
from kdjax.training.loop import Counts, Training, TrainSettings, preview
from kdjax.training.loss import target_nll, token_losses
from kdjax.training.placement import replicate
from kdjax.training.step import Trainer

__all__ = [
    "Counts",
    "Rows",
    "TrainSettings",
    "Trainer",
    "Training",
    "bucket_edges",
    "lay_out",
    "plan_groups",
    "preview",
    "replicate",
    "target_nll",
    "token_losses",
]
