"""Prompts in a few lengths: a row each, padded on the right, without what all prompts of a domain begin with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from kdjax.prompting import Example
from kdjax.training.batches import align, by_domain


@dataclass(frozen=True)
class PromptBatch:
    """Prompts of one domain that are answered side by side. `members` are their places in the list that was laid out."""

    domain: str
    tokens: Int[np.ndarray, "devices batch length"]
    lengths: Int[np.ndarray, "devices batch"]
    members: tuple[int, ...]


def lay_out_prompts(
    prompts: Sequence[Example],
    prefixes: Mapping[str, tuple[int, ...]],
    buckets: int,
    rows_per_device: int,
    devices: int,
    pad_id: int,
) -> list[PromptBatch]:
    """Cut each domain's prompts into batches, longest first, in at most `buckets` lengths. Missing rows are padding of length 1."""
    batches, size = [], rows_per_device * devices
    for domain in by_domain(prompts):
        own = {i: p.prompt_ids[len(prefixes[domain]) :] for i, p in enumerate(prompts) if p.domain == domain}
        edges = bucket_edges([align(len(ids)) for ids in own.values()], buckets)
        order = sorted(own, key=lambda i: (-len(own[i]), i))
        for start in range(0, len(order), size):
            members = order[start : start + size]
            tokens = np.full((size, next(edge for edge in edges if edge >= len(own[members[0]]))), pad_id, np.int32)
            lengths = np.ones(size, np.int32)
            for row, member in enumerate(members):
                lengths[row] = len(own[member])
                tokens[row, : lengths[row]] = own[member]
            batches.append(
                PromptBatch(
                    domain, tokens.reshape(devices, rows_per_device, -1), lengths.reshape(devices, -1), tuple(members)
                )
            )
    return batches


def bucket_edges(lengths: Sequence[int], count: int) -> list[int]:
    """The at most `count` upper edges, ascending, that cover all lengths with the least total padding (dynamic programme)."""
    edges, frequency = np.unique(lengths, return_counts=True)
    seen = np.concatenate([[0], np.cumsum(frequency)])
    cost = [
        seen[1:] * edges
    ]  # cost[k][j]: padded tokens of all lengths <= edges[j] in k + 1 buckets, the last ending at j
    came_from = []
    for _ in range(min(count, len(edges)) - 1):
        step = np.array(
            [
                [cost[-1][i] + (seen[j + 1] - seen[i + 1]) * edges[j] if i < j else np.inf for i in range(len(edges))]
                for j in range(len(edges))
            ]
        )
        came_from.append(step.argmin(axis=1))
        cost.append(step.min(axis=1))
    level, last, chosen = int(np.argmin([c[-1] for c in cost])), len(edges) - 1, []
    for k in range(level, -1, -1):
        chosen.append(int(edges[last]))
        last = came_from[k - 1][last] if k else last
    return chosen[::-1]
