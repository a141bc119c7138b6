"""The host side of Klaus: models, readers, quantization, packages, packed models and reference engines."""
