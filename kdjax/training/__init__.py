"""Training: batches, loss, step, checkpoints, loop."""

from kdjax.training import processes
from kdjax.training.backend import check_backend
from kdjax.training.batches import (
    Group,
    MicroBatch,
    batch_members,
    by_domain,
    common_prefix,
    lay_out,
    plan_groups,
)
from kdjax.training.loop import Counts, Training, TrainSettings, preview
from kdjax.training.loss import TEXT, Objective, pair_losses, pairs, product_states, target_nll, token_losses
from kdjax.training.parallel import KINDS, Parallel
from kdjax.training.preemption import Preempted
from kdjax.training.rows import PairRows, ProductRows, Rows, pair_labels
from kdjax.training.step import Trainer, adamw, learning_rate_schedule

__all__ = [
    "KINDS",
    "TEXT",
    "Counts",
    "Group",
    "MicroBatch",
    "Objective",
    "PairRows",
    "Parallel",
    "Preempted",
    "ProductRows",
    "Rows",
    "TrainSettings",
    "Trainer",
    "Training",
    "adamw",
    "batch_members",
    "by_domain",
    "check_backend",
    "common_prefix",
    "lay_out",
    "learning_rate_schedule",
    "pair_labels",
    "pair_losses",
    "pairs",
    "plan_groups",
    "preview",
    "processes",
    "product_states",
    "target_nll",
    "token_losses",
]
