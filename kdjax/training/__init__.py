"""Training: batches, loss, step, checkpoints, loop."""

from kdjax.training.batches import MicroBatch, batch_members, lay_out, plan_groups
from kdjax.training.loop import Counts, Training, TrainSettings, preview
from kdjax.training.loss import TEXT, Objective, pair_losses, pairs, product_states, target_nll, token_losses
from kdjax.training.placement import replicate
from kdjax.training.rows import PairRows, ProductRows, Rows, pair_labels
from kdjax.training.step import Trainer, adamw, learning_rate_schedule

__all__ = [
    "TEXT",
    "Counts",
    "MicroBatch",
    "Objective",
    "PairRows",
    "ProductRows",
    "Rows",
    "TrainSettings",
    "Trainer",
    "Training",
    "adamw",
    "batch_members",
    "lay_out",
    "learning_rate_schedule",
    "pair_labels",
    "pair_losses",
    "pairs",
    "plan_groups",
    "preview",
    "product_states",
    "replicate",
    "target_nll",
    "token_losses",
]
