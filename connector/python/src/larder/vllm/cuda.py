"""Host memory that CUDA has mapped."""

from __future__ import annotations

import torch

# cudaHostRegisterReadOnly: of memory that this process may only read.
_READ_ONLY = 8


class CudaDriver:
    """larder.registered.Driver by torch's binding of the runtime."""

    def __init__(self, index: int) -> None:
        self._index = index

    def bind(self) -> None:
        """See Driver."""
        torch.cuda.set_device(self._index)

    def register(self, address: int, size: int, *, writable: bool) -> str:
        """See Driver."""
        error = torch.cuda.cudart().cudaHostRegister(address, size, 0 if writable else _READ_ONLY)
        return "" if int(error) == 0 else f"cudaHostRegister: {error}"

    def unregister(self, address: int) -> None:
        """See Driver."""
        # Called at the end of things, where nobody could do more about an error.
        torch.cuda.cudart().cudaHostUnregister(address)
