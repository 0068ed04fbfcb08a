"""``convert``: one request in, one converted graph out."""

from __future__ import annotations

from compiler.precision._base import Converted, Request

__all__ = ["convert"]


def convert(request: Request) -> Converted:
    """Write the graph of ``request`` in its precision into its folder.

    Inputs and outputs keep their names, dtypes and dynamic axes; casts and Q/DQ are inside. The
    same request gives the same bytes.

    Raises:
        ExportError: the graph cannot be converted; code ``precision`` or ``quantize``.
        ParityError: the fp32 graph itself is beyond tolerance, or too many nodes would have to
            stay in fp32; code ``precision_parity``.
    """
    if request.precision == "int8":
        from compiler.precision.quantize import quantize

        return quantize(request)
    from compiler.precision.halve import halve

    return halve(request)
