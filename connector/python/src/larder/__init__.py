"""Larder's client and engine connectors.

Importing this package loads nothing: take the module you need, such as
``larder.client`` or ``larder.vllm``.
"""

__version__ = "0.1.0"
