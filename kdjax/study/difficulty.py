"""How hard training sessions are: what the untrained student thinks of their true answers."""

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from kdjax.data import Domain
from kdjax.reporting import Progress, RunLog
from kdjax.student import Student
from kdjax.study import examples as asking
from kdjax.study.quantity import Difficulty
from kdjax.study.telling import Teller
from kdjax.training import Parallel, Rows, lay_out, plan_groups, token_losses


def difficulty(
    student: Student, parallel: Parallel, config: ConfigDict, domains: Mapping[str, Domain], log: RunLog
) -> Difficulty:
    """Domain → training session → the mean negative log-likelihood (nats per token) of its written answer, told without knowledge.

    A score of zero-shot answers could not rank sessions, since a small student fails them all.
    """
    teller = Teller(student.tokenizer, asking.product_form(config), dict.fromkeys(domains, ""))
    told = [teller.example(name, session) for name, domain in domains.items() for session in domain.splits["train"]]
    sums, targets = np.zeros(len(told)), np.zeros(len(told))
    graph, adapter, base = student.graph, student.adapter, student.base
    losses = parallel.spread(
        lambda adapter, base, prefix, rows: token_losses(graph, adapter, base, prefix, rows), (None, None, None, 0)
    )
    groups = plan_groups(told, config.train.micro_batch_tokens, parallel.long_rows)
    with Progress(len(told), "difficulty", log) as progress:
        for batch in lay_out(told, groups, parallel.shares, student.tokenizer.eos_id):
            rows = batch.rows
            assert isinstance(rows, Rows)  # so they were planned
            owner = np.take_along_axis(rows.ids, rows.positions, axis=-1)[rows.weights > 0]
            found = np.asarray(losses(adapter, base, batch.prefix, rows))[rows.weights > 0]
            np.add.at(sums, owner, found)
            np.add.at(targets, owner, 1.0)
            progress.update(len(batch.members))
    measured: dict[str, dict[str, float]] = {name: {} for name in domains}
    for example, nll in zip(told, sums / targets, strict=True):
        measured[example.domain][example.session_id] = float(nll)
    return measured
