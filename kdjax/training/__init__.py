"""Training: batches, loss, step, checkpoints, loop."""

from kdjax.training.batches import MicroBatch, Rows, batch_members, lay_out, plan_groups
from kdjax.training.loop import Counts, Training, TrainSettings, preview
from kdjax.training.loss import target_nll, token_losses
from kdjax.training.placement import replicate
from kdjax.training.step import Trainer, adamw, learning_rate_schedule

__all__ = [
    "Counts",
    "MicroBatch",
    "Rows",
    "TrainSettings",
    "Trainer",
    "Training",
    "adamw",
    "batch_members",
    "lay_out",
    "learning_rate_schedule",
    "plan_groups",
    "preview",
    "replicate",
    "target_nll",
    "token_losses",
]
