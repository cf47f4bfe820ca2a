"""How long XLA has compiled so far in this process, so that throughput can leave it out."""

import jax

_COMPILE_EVENTS = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")
_seconds = 0.0


def compile_seconds() -> float:
    """Seconds spent in lowering and compilation (a hit in the compile cache counts what it took), since the import."""
    return _seconds


def _listen(event: str, duration_secs: float, **_: str | int) -> None:
    global _seconds
    if event in _COMPILE_EVENTS:
        _seconds += duration_secs


jax.monitoring.register_event_duration_secs_listener(_listen)
