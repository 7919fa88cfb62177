"""Networks that were exported for one size, made to take pictures of any size."""

from __future__ import annotations

from engines.contract import MissingPackage


def with_free_sizes(onnx_bytes: bytes) -> bytes:
    """The same convolutional network with one picture a batch and free heights and widths, in and out.

    Raises MissingPackage without `onnx`.
    """
    try:
        import onnx
    except ImportError:
        raise MissingPackage("a network of a fixed size", "faces") from None
    model = onnx.load_from_string(onnx_bytes)
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in weights]
    del model.graph.input[:]  # older files list their weights there, too
    model.graph.input.extend(inputs)
    for side, values in (("in", model.graph.input), ("out", model.graph.output)):
        for value in values:
            axes = value.type.tensor_type.shape.dim
            axes[0].dim_value = 1
            axes[2].dim_param, axes[3].dim_param = f"height_{side}", f"width_{side}"
    return bytes(model.SerializeToString())
