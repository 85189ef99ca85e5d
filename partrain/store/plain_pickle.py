"""Pickles from elsewhere, read without running anything that they name.

A pickle is a program: it may name any function of any module, and have it called. Here the names in it stand for
functions of this file, which make arrays and numbers of checked parts; every other name is refused. Of the
instructions only those are admitted that lists, tuples, texts, numbers and arrays need.

The whole program is looked through first: that all its parts are there, and that it does not ask for more memory
than it fills. The unpickler itself would believe what it says.

Sources: the instructions, as CPython's `pickletools` describes them; PEP 574 for arrays in protocol 5.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from partrain.errors import RunError

# An array of 100 MB, and a million steps' costs, which take 8 instructions each.
MAX_BYTES = 128 * 1024**2
MAX_INSTRUCTIONS = 10_000_000

# No dictionaries and no sets: hashing a key that the file makes up can take for ever.
_INSTRUCTIONS = re.compile(
    r"PROTO|FRAME|STOP|POP|POP_MARK|DUP|MARK|PUT|BINPUT|LONG_BINPUT|MEMOIZE|GET|BINGET|LONG_BINGET"
    r"|NONE|NEWTRUE|NEWFALSE|INT|BININT|BININT1|BININT2|LONG|LONG1|LONG4|FLOAT|BINFLOAT"
    r"|STRING|BINSTRING|SHORT_BINSTRING|BINBYTES|SHORT_BINBYTES|BINBYTES8|BYTEARRAY8"
    r"|UNICODE|BINUNICODE|SHORT_BINUNICODE|BINUNICODE8"
    r"|EMPTY_LIST|LIST|APPEND|APPENDS|EMPTY_TUPLE|TUPLE|TUPLE1|TUPLE2|TUPLE3"
    r"|GLOBAL|STACK_GLOBAL|REDUCE|BUILD"
)
_TO_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
_FROM_MEMO = ("GET", "BINGET", "LONG_BINGET")
_NUMBER_TYPE = re.compile(r"[<>=|]?(b1|i[1248]|u[1248]|f[248])")
_MAX_DIMENSIONS = 32


class RefusedPickle(RunError):
    """The file asks for something that is no array, number, text, list or tuple."""


def load_plain_pickle(data: bytes, name: str) -> Any:
    """Return what a pickle of protocol 0 to 5 holds, if that is lists, tuples, texts, numbers and arrays of numbers.

    Parameters
    ----------
    data : the whole file. What stands after the first pickle in it is not looked at.
    name : what messages call the file.

    Raises
    ------
    RefusedPickle
        Something else is asked for; names it. Nothing of it was called.
    RunError
        The file is truncated, damaged, too large, or no pickle.
    """
    if len(data) > MAX_BYTES:
        raise RunError(f"{name}: is larger than {MAX_BYTES:,} bytes, which no file of the article's network is.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts that Python would not write itself
            _look_through(data, name)
            return _Unpickler(data, name).load()
    # Whatever the unpickler, and what it calls, makes of parts that do not belong together.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{name}: is damaged, cut off, or no pickle: {cause:.200}.") from error


def _look_through(data: bytes, name: str) -> None:
    """Check instruction by instruction, and names with them: so that a name is told before what is done with it."""
    argument: Any
    texts: list[Any] = ["", ""]  # the last two that were put on the stack
    memo: dict[int, Any] = {}
    for count, (instruction, argument, place) in enumerate(pickletools.genops(data)):
        what = instruction.name
        if what in ("GLOBAL", "INST"):
            module, _, attribute = argument.partition(" ")
            _require_admitted(module, attribute, name)
        elif what == "STACK_GLOBAL":
            _require_admitted(texts[0], texts[1], name)
        if not _INSTRUCTIONS.fullmatch(what):
            raise RefusedPickle(
                f"{name}: is no pickle of lists, tuples, texts, numbers and arrays alone: the instruction {what} in it "
                "is refused. Nothing of it was run."
            )
        if count >= MAX_INSTRUCTIONS:
            raise RunError(f"{name}: has more than {MAX_INSTRUCTIONS:,} parts.")
        if what in _TO_MEMO:
            if not 0 <= argument <= count:
                raise ValueError(f"the place {argument} for part {count}")  # room would be made for all before it
            memo[argument] = texts[1]
        elif what == "MEMOIZE":
            memo[len(memo)] = texts[1]
        elif what == "FRAME" and argument > len(data) - (place or 0):
            raise ValueError("a frame ends after the end of the file")
        elif "UNICODE" in what:
            texts = [texts[1], argument]
        elif what in _FROM_MEMO:
            texts = [texts[1], memo.get(argument, "")]


def _require_admitted(module: str, attribute: str, name: str) -> Any:
    """Return what stands for a name."""
    admitted = _ADMITTED.get((module.replace("numpy.core.", "numpy._core."), attribute))
    if admitted is None:
        asked = f"{module}.{attribute}"
        raise RefusedPickle(
            f"{name}: asks for {asked[:100]!r}, which is no array, number, list or tuple; it is refused. "
            "Nothing of it was run."
        )
    return admitted


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, name: str) -> None:
        # latin1: what Python 2 wrote as text may be the bytes of an array.
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._name = name

    def find_class(self, module: str, attribute: str) -> Any:
        return _require_admitted(module, attribute, self._name)


class _NumberType:
    """What a pickle calls a NumPy dtype: a name, and the order of bytes, which comes afterwards."""

    __slots__ = ("_dtype",)

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        match = _NUMBER_TYPE.fullmatch(name)
        if match is None:
            raise ValueError(f"numbers of the type {name[:20]!r}")
        self._dtype: np.dtype[Any] = np.dtype(match[0])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        match state[1]:
            case "<" | ">" | "=" | "|" as order:
                self._dtype = self._dtype.newbyteorder(order)
            case _:
                raise ValueError("an unknown order of bytes")

    def numpy(self) -> np.dtype[Any]:
        """Return NumPy's."""
        return self._dtype


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that a pickle made empty, and fills afterwards."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, is_fortran, content = state
        dtype, data = _checked(number_type, content, _sizes(shape))
        super().__setstate__((1, shape, dtype, bool(is_fortran), data))  # type: ignore[arg-type] # takes Python's bool


class _Admitted:
    """A function under a name that a pickle may use; it can be called, and nothing can be set on it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function is given a state")


def _make_nothing(*arguments: object) -> None:
    raise ValueError("an array is made in an unknown way")


_NDARRAY = _Admitted(_make_nothing)  # the class is named as what to make, and not called


def _reconstruct(kind: object, shape: object, number_type: object) -> _Array:
    if kind is not _NDARRAY:
        raise ValueError("an array is of an unknown kind")
    return np.empty(0).view(_Array)


def _scalar(number_type: object, content: object) -> Any:
    dtype, data = _checked(number_type, content, ())
    return np.frombuffer(data, dtype)[0]


def _from_buffer(
    content: object, number_type: object, shape: object, order: object, axes: object = None
) -> NDArray[Any]:
    sizes = _sizes(shape)
    dtype, data = _checked(number_type, content, sizes)
    flat = np.frombuffer(data, dtype)
    if order == "F":
        return flat.reshape(sizes, order="F")
    array = flat.reshape(sizes)
    return array if axes is None else array.transpose(_sizes(axes))


def _encode(text: str, encoding: str) -> bytes:
    """Undo how protocols 0 to 2 write bytes: as a text."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return what protocols 0 to 2 write as a call: bytes without content."""
    return b""


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array has no shape")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ValueError("an array has an impossible shape")
    return shape


def _checked(number_type: object, content: object, shape: tuple[int, ...]) -> tuple[np.dtype[Any], bytes]:
    """Return dtype and bytes of an array's content, once there are exactly as many as its shape needs."""
    if not isinstance(number_type, _NumberType):
        raise ValueError("an array says no type of its numbers")
    data = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(data, bytes | bytearray):
        raise ValueError("an array's content is no bytes")
    dtype = number_type.numpy()
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise ValueError(f"an array of {needed:,} bytes has {len(data):,}")
    return dtype, bytes(data)


_ADMITTED = {
    ("numpy._core.multiarray", "_reconstruct"): _Admitted(_reconstruct),
    ("numpy._core.multiarray", "scalar"): _Admitted(_scalar),
    ("numpy._core.numeric", "_frombuffer"): _Admitted(_from_buffer),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Admitted(_NumberType),
    ("_codecs", "encode"): _Admitted(_encode),
    ("__builtin__", "bytes"): _Admitted(_no_bytes),
}
