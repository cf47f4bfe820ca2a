"""Prompts in a few lengths, without what all prompts of a domain begin with, in batches that are read at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from kdjax.prompting import Example
from kdjax.training.batches import ROW, align, by_domain, largest, spread

SHARE = 4  # a batch fills about one slot in so many


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are read at once, rows that each hold one or several of them one after the other.

    `starts` says for each token where in the row its prompt begins; for padding the row's length. Prompt p of device d begins
    at place first[d, p] of all the device's rows and has lengths[d, p] tokens (0: there is no such prompt); members[d] are their
    places in the list that was laid out.
    """

    tokens: Int[np.ndarray, "devices rows length"]
    starts: Int[np.ndarray, "devices rows length"]
    first: Int[np.ndarray, "devices slots"]
    lengths: Int[np.ndarray, "devices slots"]
    members: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Bucket:
    """Prompts of one domain, none longer than `length`, that are answered in `slots` per device; batches of one shape."""

    domain: str
    length: int
    slots: int
    batches: tuple[PromptBatch, ...]


def lay_out_prompts(
    prompts: Sequence[Example],
    prefixes: Mapping[str, tuple[int, ...]],
    buckets: int,
    slots: int,
    devices: int,
    pad_id: int,
    *,
    one_row: bool,
) -> list[Bucket]:
    """Sort each domain's prompts into at most `buckets` lengths, with at most `slots` answered side by side on each device.

    `one_row`: a device reads a batch as a single long row (see `Parallel.long_rows`), else a prompt per row.
    """
    found = []
    for domain in by_domain(prompts):
        own = {i: p.prompt_ids[len(prefixes[domain]) :] for i, p in enumerate(prompts) if p.domain == domain}
        shorter = 0
        for edge in bucket_edges([align(len(ids)) for ids in own.values()], buckets):
            inside = {i: ids for i, ids in own.items() if shorter < len(ids) <= edge}
            used = min(slots, -(-len(inside) // devices))
            lengths = {i: len(ids) for i, ids in inside.items()}
            groups = _batches(lengths, edge, used, devices, one_row)
            length = edge
            if one_row:
                step = min(ROW, edge)
                longest = max(largest(group, lengths) for group in groups)
                length = -(-longest // step) * step
            rows = 1 if one_row else max(len(members) for group in groups for members in group)
            batches = (_batch(group, inside, (rows, length), used, pad_id) for group in groups)
            found.append(Bucket(domain, edge, used, tuple(batches)))
            shorter = edge
    return found


def _batches(lengths: dict[int, int], edge: int, slots: int, devices: int, one_row: bool) -> list[list[list[int]]]:
    """The members of each batch, by device: about equally many tokens in each, and no more prompts than slots."""
    at_once = max(1, slots // SHARE)
    if not one_row:
        order, size = sorted(lengths, key=lambda i: (-lengths[i], i)), at_once * devices
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        return [[chunk[device::devices] for device in range(devices)] for chunk in chunks]
    count = -(-sum(lengths.values()) // (at_once * edge * devices))
    while max(map(len, packed := spread(lengths, count * devices))) > slots:
        count += 1
    return [packed[start : start + devices] for start in range(0, len(packed), devices)]


def _batch(
    group: list[list[int]], own: Mapping[int, tuple[int, ...]], shape: tuple[int, int], slots: int, pad_id: int
) -> PromptBatch:
    rows, length = shape
    tokens = np.full((len(group), rows * length), pad_id, np.int32)
    starts = np.full(tokens.shape, length, np.int32)
    first, lengths = (np.zeros((len(group), slots), np.int32) for _ in range(2))
    for device, members in enumerate(group):
        at = 0
        for place, member in enumerate(members):
            if rows > 1:
                at = place * length
            size = len(own[member])
            tokens[device, at : at + size] = own[member]
            starts[device, at : at + size] = at % length
            first[device, place], lengths[device, place] = at, size
            at += size
    whole = (len(group), rows, length)
    return PromptBatch(tokens.reshape(whole), starts.reshape(whole), first, lengths, tuple(map(tuple, group)))


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
