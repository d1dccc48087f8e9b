"""One device for each CPU core."""

import os

import jax


def use_all_cores(num_devices: int | None = None) -> int:
    """Give the CPU one JAX device per core, so that sharded fits use all of them.

    Call it before JAX is first used: before the first array, not just before the first fit. Then
    `jaxprob.data.shard` spreads rows over the devices, and each core reads its own rows, once a
    pass.

    Args:
        num_devices: how many; as many as the process may use cores where None.

    Returns:
        The number of CPU devices.

    Raises:
        ValueError: for fewer than one.
        RuntimeError: when JAX has been used already.

    Example:
        >>> try:
        ...     _ = jax.numpy.ones(1), use_all_cores()
        ... except RuntimeError as error:
        ...     print(str(error)[:36])
        use_all_cores: call it before JAX is
    """
    if num_devices is None:
        num_devices = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else (os.cpu_count() or 1)
        )
    if num_devices < 1:
        raise ValueError(f"num_devices: expected at least 1, got {num_devices}")
    try:
        jax.config.update("jax_num_cpu_devices", num_devices)
    except RuntimeError as error:
        raise RuntimeError(
            "use_all_cores: call it before JAX is first used: JAX has made its devices already, "
            "with the first array or computation. Move the call to the top of the program, "
            "right after the imports"
        ) from error
    return num_devices
