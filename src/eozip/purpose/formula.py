"""Formulas of bands, such as `(nir - red) / (nir + red)`: parsed into a tree of known nodes, never evaluated by Python.

Values are reflectances. A name is a band's (`B08`), a common one (`nir`), or an index that is known here (`ndvi`).
"""

from __future__ import annotations

import ast
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eozip.errors import InputError

INDICES: Mapping[str, str] = {
    "ndvi": "(nir - red) / (nir + red)",  # Rouse et al. 1974
    "ndwi": "(green - nir) / (green + nir)",  # McFeeters 1996: open water
    "mndwi": "(green - swir1) / (green + swir1)",  # Xu 2006
    "ndmi": "(nir - swir1) / (nir + swir1)",  # Gao 1996: water in leaves
    "nbr": "(nir - swir2) / (nir + swir2)",  # Key and Benson 2006: burnt areas
    "ndsi": "(green - swir1) / (green + swir1)",  # Hall et al. 1995: snow
    "evi": "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)",  # Huete et al. 2002
    "savi": "1.5 * (nir - red) / (nir + red + 0.5)",  # Huete 1988
}

# CPython 3.11 counts how deep a parser is in a place that threads share, and raises SystemError where two of them meet
_ONE_AT_A_TIME = threading.Lock()
_MAX_TEXT = 400
_MAX_NODES = 100
_MAX_NUMBER = 1e12
_BINARY: Mapping[type[ast.operator], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[np.ndarray], np.ndarray]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Mapping[str, Callable[..., np.ndarray]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "min": np.minimum,
    "max": np.maximum,
}
_ARGUMENTS = {"min": 2, "max": 2}
# The same light under the names of several sensors; "nir" is the wide band where there are two.
_COMMON: Mapping[str, tuple[str, ...]] = {
    "coastal": ("B01", "SR_B1"),
    "blue": ("B02", "SR_B2"),
    "green": ("B03", "SR_B3"),
    "red": ("B04", "SR_B4"),
    "nir": ("B08", "B8A", "SR_B5"),
    "nir08": ("B8A", "SR_B5"),
    "swir1": ("B11", "SR_B6"),
    "swir16": ("B11", "SR_B6"),
    "swir2": ("B12", "SR_B7"),
    "swir22": ("B12", "SR_B7"),
    "rededge1": ("B05",),
    "rededge2": ("B06",),
    "rededge3": ("B07",),
}


@dataclass(frozen=True)
class Formula:
    """A formula whose names are bands; `parse_formula` makes it.

    Attributes:
        text: as it was given.
        tree: its nodes, all of them known.
        bands: names of the bands that it needs, sorted.
    """

    text: str
    tree: ast.expr
    bands: tuple[str, ...]

    def __call__(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The formula's values.

        Args:
            values: reflectance of each band that it needs, arrays of one shape.

        Returns:
            float64; NaN where it has no value (a division by zero, the root of a negative number).
        """
        shape = np.shape(next(iter(values.values()))) if values else ()
        with np.errstate(all="ignore"):
            found = np.broadcast_to(np.asarray(_value(self.tree, values), np.float64), shape)
        return np.where(np.isfinite(found), found, np.nan)


def parse_formula(text: str, bands: Sequence[str]) -> Formula:
    """Read a formula of bands.

    Args:
        text: an index (`ndvi`), or arithmetic: names, numbers, + - * / **, parentheses, abs sqrt log exp min max.
        bands: names of the bands there are.

    Raises:
        InputError: it does not parse, or names bands that are not there; the message says what is known.
    """
    tree = _expanded(_parsed(text), _parsed_indices(), _known_names(bands), text)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(_FUNCTIONS)
    if not names:
        raise InputError(f"formula {text!r}: expected at least one band, got none; {_help(bands)}")
    return Formula(text, tree, tuple(sorted(names)))


def check_syntax(text: str) -> None:
    """Refuse what is no formula of any bands.

    Raises:
        InputError: see above.
    """
    tree = _parsed(text)
    if not any(isinstance(node, ast.Name) and node.id not in _FUNCTIONS for node in ast.walk(tree)):
        raise InputError(f"formula {text!r:.80}: expected at least one band, got none")


def _tree(text: str) -> ast.expr:
    with _ONE_AT_A_TIME:
        return ast.parse(text, mode="eval").body


def _parsed(text: str) -> ast.expr:
    """The tree of a formula, of nodes that are allowed alone."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"formula: expected text such as ndvi or (B08-B04)/(B08+B04), got {text!r}")
    if len(text) > _MAX_TEXT:
        raise InputError(f"formula: expected at most {_MAX_TEXT} characters, got {len(text)}")
    try:
        tree = _tree(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise InputError(
            f"formula {text!r:.80}: expected arithmetic of bands such as (B08-B04)/(B08+B04), got something else: {reason}"
        ) from error
    nodes = list(ast.walk(tree))
    if len(nodes) > _MAX_NODES * 2:
        raise InputError(f"formula {text!r:.80}: expected at most {_MAX_NODES} terms, got more")
    for node in nodes:
        _check(node, text)
    return tree


def _check(node: ast.AST, text: str) -> None:
    """Refuses whatever is no arithmetic of bands."""
    match node:
        case ast.Constant(value=bool()):
            problem = "a truth value"
        case ast.Constant(value=int() | float() as number) if abs(number) <= _MAX_NUMBER:
            return
        case ast.Constant():
            problem = f"{node.value!r:.40}"
        case ast.BinOp(op=op) if type(op) in _BINARY:
            if not isinstance(op, ast.Pow) or _is_small(node.right):
                return
            problem = "a power other than -4 to 4"
        case ast.UnaryOp(op=op) if type(op) in _UNARY:
            return
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            count = _ARGUMENTS.get(name, 1)
            if len(node.args) == count and not any(isinstance(arg, ast.Starred) for arg in node.args):
                return
            problem = f"{name} of {len(node.args)} values where it takes {count}"
        case ast.Name() | ast.expr_context() | ast.operator() | ast.unaryop():
            return
        case ast.Call(func=ast.Name(id=name)):
            problem = f"{name}()"
        case _:
            problem = type(node).__name__
    raise InputError(
        f"formula {text!r:.80}: expected names, numbers, + - * / **, parentheses and {' '.join(_FUNCTIONS)}, got {problem}"
    )


def _is_small(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and abs(node.value) <= 4


def _parsed_indices() -> dict[str, ast.expr]:
    return {name: _tree(text) for name, text in INDICES.items()}


def _known_names(bands: Sequence[str]) -> dict[str, str]:
    """Every spelling of the bands there are: in small letters, and common names."""
    own = {name.lower(): name for name in bands}
    common = {
        alias: found
        for alias, names in _COMMON.items()
        if (found := next((own[n.lower()] for n in names if n.lower() in own), None))
    }
    return common | own


def _expanded(
    node: ast.expr, indices: Mapping[str, ast.expr], known: Mapping[str, str], text: str
) -> ast.expr:
    """The tree with indices written out and names as the bands are called."""

    class Expand(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.Call:
            return ast.Call(node.func, [self.visit(arg) for arg in node.args], [])

        def visit_Name(self, node: ast.Name) -> ast.expr:
            name = node.id.lower()
            if name in known:
                return ast.Name(known[name], node.ctx)
            if name in indices:
                return _expanded(indices[name], {}, known, text)
            raise InputError(f"formula {text!r:.80}: no band {node.id!r:.40}; {_help(list(known.values()))}")

    return Expand().visit(ast.fix_missing_locations(_copy(node)))


def _copy(node: ast.expr) -> ast.expr:
    return _tree(ast.unparse(node))


def _help(bands: Sequence[str]) -> str:
    return f"bands there are: {' '.join(sorted(set(bands)))}; indices: {' '.join(INDICES)}"


def _value(node: ast.expr, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """A node's value; every kind of node that `_check` lets pass."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return np.asarray(number, np.float64)
        case ast.Name(id=name):
            return np.asarray(values[name], np.float64)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_value(left, values), _value(right, values))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, values))
        case ast.Call(func=ast.Name(id=name), args=args):
            return _FUNCTIONS[name](*(_value(arg, values) for arg in args))
    raise InputError(f"formula: expected arithmetic, got {type(node).__name__}")
