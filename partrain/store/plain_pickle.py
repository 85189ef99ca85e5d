"""Reads untrusted pickles without running any code that they name.

A pickle is a program: it can name any function of any module and call it. This reader maps the names of NumPy's own
functions to functions of this file, which build arrays and numbers from checked parts, and refuses every other name. It
allows only the instructions that lists, tuples, texts, numbers and arrays need.

The whole program is scanned first. The scan checks that no part is missing and that the program does not ask for more
memory than it fills, because Python's unpickler trusts the sizes in the file. A program can also make many copies of
one text: the bytes of all arrays and texts that it makes are counted, and limited by the size of the file.

Sources: the instructions as CPython's `pickletools` describes them; PEP 574 for arrays in protocol 5.
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
from partrain.system.memory_limits import require_memory

# Room for an array of 100 MB, and for the costs of a million steps, which take 8 instructions each.
MAX_BYTES = 128 * 1024**2
MAX_INSTRUCTIONS = 10_000_000

# A file holds each byte of an array once: as text, from which bytes are made, from which an array is made. More than
# this many times the size of the file are copies of the same content.
_MOST_COPIES = 4
# Each part makes one object at most, of about this size; memory for so many of them is required at a time.
_PART_BYTES, _PARTS_PER_CHECK = 100, 100_000
_ADVICE = "Check that it is the file of the article's network, or free some memory."

# No dictionaries and no sets: the file could choose keys whose hashing never ends.
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
    """The file contains something other than arrays, numbers, texts, lists and tuples."""


def load_plain_pickle(data: bytes, name: str) -> Any:
    """Return the content of a pickle of lists, tuples, texts, numbers and arrays of numbers.

    Parameters
    ----------
    data : the whole file, of protocol 0 to 5. Bytes after the first pickle are ignored.
    name : the file's name in error messages.

    Raises
    ------
    RefusedPickle
        The file contains something else; the message names it. No code from the file was run.
    RunError
        The file is truncated, damaged, too large, or not a pickle.
    ResourceError
        Its content does not fit into memory.
    """
    if len(data) > MAX_BYTES:
        raise RunError(f"{name}: is larger than {MAX_BYTES:,} bytes; no file of the article's network is.")
    require_memory(_MOST_COPIES * len(data), name, _ADVICE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in texts that Python itself would not write
            _scan(data, name)
            return _Unpickler(data, name).load()
    # The unpickler and the functions below raise these if the parts of the file do not fit together.
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
        raise RunError(f"{name}: is damaged, truncated, or not a pickle: {cause:.200}.") from error


def _scan(data: bytes, name: str) -> None:
    """Check every instruction, and every name before the instructions that use it."""
    argument: Any
    texts: list[Any] = ["", ""]  # the last two texts on the stack
    memo: dict[int, Any] = {}
    for count, (instruction, argument, position) in enumerate(pickletools.genops(data)):
        operation = instruction.name
        if operation in ("GLOBAL", "INST"):
            module, _, attribute = argument.partition(" ")
            _allowed_function(module, attribute, name)
        elif operation == "STACK_GLOBAL":
            _allowed_function(texts[0], texts[1], name)
        if not _INSTRUCTIONS.fullmatch(operation):
            raise RefusedPickle(
                f"{name}: is not a pickle of lists, tuples, texts, numbers and arrays: its instruction {operation} is "
                "refused. No code from the file was run."
            )
        if count >= MAX_INSTRUCTIONS:
            raise RunError(f"{name}: has more than {MAX_INSTRUCTIONS:,} parts.")
        if count and count % _PARTS_PER_CHECK == 0:
            require_memory((count + _PARTS_PER_CHECK) * _PART_BYTES, name, _ADVICE)
        if operation in _TO_MEMO:
            if not 0 <= argument <= count:
                raise ValueError(f"memo entry {argument} at part {count}")  # Python would allocate all before it
            memo[argument] = texts[1]
        elif operation == "MEMOIZE":
            memo[len(memo)] = texts[1]
        elif operation == "FRAME" and argument > len(data) - (position or 0):
            raise ValueError("a frame ends after the end of the file")
        elif "UNICODE" in operation:
            texts = [texts[1], argument]
        elif operation in _FROM_MEMO:
            texts = [texts[1], memo.get(argument, "")]


def _allowed_function(module: str, attribute: str, name: str) -> Any:
    """Return the function of this file that replaces a named function."""
    function = _ALLOWED.get((module.replace("numpy.core.", "numpy._core."), attribute))
    if function is None:
        full_name = f"{module}.{attribute}"
        raise RefusedPickle(
            f"{name}: asks for {full_name[:100]!r}, which is not an array, number, list or tuple; it is refused. "
            "No code from the file was run."
        )
    return function


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, name: str) -> None:
        # latin1, because Python 2 wrote the bytes of an array as text.
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._name = name
        self._allowance = _Allowance(_MOST_COPIES * len(data))

    def find_class(self, module: str, attribute: str) -> Any:
        function = _allowed_function(module, attribute, self._name)
        return function if function is _NDARRAY else _AllowedFunction(function, self._allowance)


class _Allowance:
    """The bytes that the content of a file may still take.

    Parameters
    ----------
    num_bytes : at the beginning.
    """

    __slots__ = ("_left_bytes",)

    def __init__(self, num_bytes: int) -> None:
        self._left_bytes = num_bytes

    def take(self, num_bytes: int) -> None:
        """Take some of them; raise a ValueError if there are not so many."""
        self._left_bytes -= num_bytes
        if self._left_bytes < 0:
            raise ValueError("it makes many copies of the same content")

    def __setstate__(self, state: object) -> None:
        raise ValueError("an allowance is assigned a state")


class _NumberType:
    """A NumPy dtype in a pickle: created by its name; the byte order follows as its state."""

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
                raise ValueError("an unknown byte order")

    def numpy(self) -> np.dtype[Any]:
        """Return the NumPy dtype."""
        return self._dtype


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that a pickle creates empty and fills afterwards."""

    __slots__ = ("allowance",)
    allowance: _Allowance

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, is_fortran, content = state
        dtype, data = _checked(number_type, content, _sizes(shape))
        self.allowance.take(len(data))
        super().__setstate__((1, shape, dtype, bool(is_fortran), data))  # type: ignore[arg-type] # takes Python's bool


class _AllowedFunction:
    """A function that a pickle may call, but cannot change; the size of its results is limited."""

    __slots__ = ("_allowance", "_function")

    def __init__(self, function: Callable[..., Any], allowance: _Allowance) -> None:
        self._function, self._allowance = function, allowance

    def __call__(self, *arguments: Any) -> Any:
        result = self._function(*arguments)
        if isinstance(result, _Array):
            result.allowance = self._allowance
        elif isinstance(result, bytes):
            self._allowance.take(len(result))
        elif isinstance(result, np.ndarray):
            self._allowance.take(result.nbytes)
        return result

    def __setstate__(self, state: object) -> None:
        raise ValueError("a function is assigned a state")


def _refuse_call(*arguments: object) -> None:
    raise ValueError("an array is created in an unknown way")


_NDARRAY = _AllowedFunction(_refuse_call, _Allowance(0))  # only an argument, the class of an array; never called


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
    """Return bytes, which protocols 0 to 2 write as text."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Return no bytes, which protocols 0 to 2 write as a call."""
    return b""


def _sizes(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError("an array has no shape")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ValueError("an array has an impossible shape")
    return shape


def _checked(number_type: object, content: object, shape: tuple[int, ...]) -> tuple[np.dtype[Any], bytes]:
    """Return dtype and bytes of an array's content, after checking that there are as many as its shape needs."""
    if not isinstance(number_type, _NumberType):
        raise ValueError("an array has no dtype")
    data = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(data, bytes | bytearray):
        raise ValueError("the content of an array is not bytes")
    dtype = number_type.numpy()
    needed = math.prod(shape) * dtype.itemsize
    if len(data) != needed:
        raise ValueError(f"an array of {needed:,} bytes has {len(data):,}")
    return dtype, bytes(data)


_ALLOWED = {
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _NumberType,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}
