"""Pages of an engine that sleeps.

vLLM takes the memory from under its pages when it sleeps, and tells no
connector. Requests are gone by then, but loads of theirs may still be under way,
and a copy that starts now would end the engine: so the allocator's two methods
are wrapped, on the one object that an engine's process has.
"""

from __future__ import annotations

from typing import Any, Protocol

from vllm.logger import init_logger

logger = init_logger("vllm.larder.sleeping")


class Sleeper(Protocol):
    """Who copies pages."""

    def suspend(self) -> None:
        """Waits for copies under way, and starts none until resume."""
        ...

    def resume(self) -> None:
        """The opposite."""
        ...


def watch_sleep(model_config: Any, sleeper: Sleeper) -> None:
    """Makes copies end before the engine sleeps, where it may."""
    if not getattr(model_config, "enable_sleep_mode", False):
        return
    backend = getattr(model_config, "sleep_mode_backend", "cumem")
    try:
        from vllm.device_allocator.cumem import CuMemAllocator

        allocator = CuMemAllocator.get_instance() if backend == "cumem" else None
    except (ImportError, AssertionError):
        allocator = None
    if allocator is None:
        logger.warning("Larder: loads under way are not kept from pages of an engine that sleeps by %s", backend)
        return
    watch(allocator, sleeper)


def watch(allocator: Any, sleeper: Sleeper) -> None:
    """The same, for an allocator."""
    sleep, wake_up = allocator.sleep, allocator.wake_up

    def sleep_after(*args: Any, **options: Any) -> Any:
        sleeper.suspend()
        return sleep(*args, **options)

    def wake_up_before(tags: Any = None) -> Any:
        done = wake_up(tags)
        # Weights may come first, by themselves.
        if tags is None or "kv_cache" in tags:
            sleeper.resume()
        return done

    allocator.sleep, allocator.wake_up = sleep_after, wake_up_before
