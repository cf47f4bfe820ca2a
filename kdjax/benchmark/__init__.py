"""Throughput against PyTorch: the JAX side, the PyTorch side, each in processes of its own, and the comparison."""


def benchmark(config, workdir: str) -> None:
    """The job of configs/benchmark.py, see `kdjax.benchmark.compare`."""
    from kdjax.benchmark.compare import run  # here, because the PyTorch side imports this package and must not load JAX

    run(config, workdir)


__all__ = ["benchmark"]
