"""Decodes coded objects (codec/FORMAT.md) on an NVIDIA GPU.

One warp decodes one unit (a field of a head of a layer) with all its passes:
lossless, plain at any level, nested objects, raw and repeated rows; a calibrated
object is a MISS. The output is that of ``larder.codec`` and of the Go codec, bit
for bit. The kernels are CUDA C++ beside this file, compiled by NVRTC at the first
use (0.3 s): no toolkit is needed, only the driver and libnvrtc, which PyTorch's
wheels bring. Neither PyTorch nor any other package than numpy is imported.

- ``layout``: checks headers and the heads of streams, and says what each warp
  does. Whatever it refuses reaches no kernel.
- ``decoder``: memory, launches, and what went wrong in which stream.
- ``driver``: libcuda and libnvrtc by ctypes; UNAVAILABLE if one is missing.

What only a stream's bytes say is checked in the kernels: each unit has a status
word (lanes at their start, the body used up, escapes that fit, ...), and so has
each layer of each pass (CRC-64 of its stored bytes). No value read from a stream
is an address that was not bounded before; after an error the output holds
anything. Compute capability 8.0 or later.

Not safe for concurrent use. The connector does not use this package yet: it
loads what the daemon keeps uncoded.
"""
