"""Rows of one length for sessions that come one by one: a session of another size needs no new program."""

from collections.abc import Sequence

from kdjax.prompting import Example
from kdjax.training import Group, ProductRows, by_domain, common_prefix

LENGTH = 512  # tokens of a row; doubled until the longest prompt fits
DENSITY = 0.25  # products per token that a row has room for; doubled until the products of each prompt fit


class SteadyRows:
    """Plans groups of few shapes, whatever the prompts.

    `probes` are prompts of made-up sessions, two or more per domain that have no product in common: what they share is
    what all prompts of the domain begin with. Where a later prompt shares less, it becomes a probe too.
    """

    def __init__(self, probes: Sequence[Example]):
        self._probes = by_domain(probes)

    def groups(self, prompts: Sequence[Example]) -> dict[str, Group]:
        """Domain → how its prompts are laid out, one row at a time on each device."""
        return {domain: self._group(domain, members) for domain, members in by_domain(prompts).items()}

    def _group(self, domain: str, members: Sequence[Example]) -> Group:
        probes = self._probes[domain]
        prefix = common_prefix(probes)
        for member in members:
            if member.prompt_ids[: len(prefix)] != prefix or len(prefix) >= member.products[0][0][0]:
                probes.append(member)
                prefix = common_prefix(probes)
        lengths = [len(ProductRows.fed(member, len(prefix))) for member in members]
        length, density = LENGTH, DENSITY
        while length < max(lengths):
            length *= 2
        while density * length < max(len(member.products) for member in members):
            density *= 2
        return Group(prefix, length, (density,), length, length, ProductRows)
