"""The function that Python calls in place of a kernel, in LLVM's code.

It is a function of Python's C API (METH_FASTCALL): it checks and unpacks the arguments, releases the interpreter lock,
calls the kernel, and returns its result. Numba would generate one that needs Numba's own libraries.

Arrays are read where NumPy's C API defines their fields: PyArrayObject_fields and the first fields of PyArray_Descr,
which are the same in all versions of NumPy from 1.7 on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.np.numpy_support import as_dtype

from partrain.kernels.compiler.plain_array import plain_array

ENTRY = "partrain_entry"

_INT32, _INT64, _BYTE = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_OBJECT = _BYTE.as_pointer()
# The size of what each object begins with: the reference count and the type.
_HEAD = object.__basicsize__
_TYPE_OF_OBJECT = _HEAD - 8
# Where the fields of an array are, and those of its dtype.
_DATA, _NUM_DIMENSIONS, _SHAPE, _DTYPE, _FLAGS = (_HEAD + place for place in (0, 8, 16, 40, 48))
_BYTE_ORDER, _TYPE_NUMBER = _HEAD + 10, _HEAD + 12
# NPY_ARRAY_CARRAY: C-contiguous, aligned, writable.
_PLAIN = 0x0001 | 0x0100 | 0x0400
# Types of NumPy that differ in their name alone.
_SAME = {"int64": ("int64", "longlong"), "uint64": ("uint64", "ulonglong")}


def add_entry_point(module: ir.Module, context: Any, signature: Any, kernel: str, name: str) -> None:
    """Define the function in a module.

    Parameters
    ----------
    context : Numba's target context.
    signature : Numba's types of the arguments and of the result.
    kernel : the symbol of the kernel's machine code.
    name : the kernel's name, for messages.
    """
    function_type = ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), _INT64])
    entry = _Entry(module, ir.Function(module, function_type, ENTRY), context, name)
    kernel_type = context.call_conv.get_function_type(signature.return_type, signature.args)
    entry.call(ir.Function(module, kernel_type, kernel), signature)


class _Entry:
    def __init__(self, module: ir.Module, function: ir.Function, context: Any, name: str) -> None:
        self._module, self._function, self._context, self._name = module, function, context, name
        self._builder = ir.IRBuilder(function.append_basic_block())

    def call(self, kernel: ir.Function, signature: Any) -> None:
        builder, (_, arguments, count) = self._builder, self._function.args
        expected = ir.Constant(_INT64, len(signature.args))
        self._require(builder.icmp_signed("==", count, expected), f"takes {len(signature.args)} arguments")
        values = []
        for k, argument_type in enumerate(signature.args):
            given = builder.load(builder.gep(arguments, [ir.Constant(_INT64, k)]))
            values.append(self._unpack(given, argument_type, k))
        state = self._api("PyEval_SaveThread", _OBJECT)
        status, result = self._context.call_conv.call_function(
            builder, kernel, signature.return_type, signature.args, values
        )
        self._api("PyEval_RestoreThread", ir.VoidType(), state)
        with builder.if_then(status.is_error, likely=False):
            self._raise("PyExc_MemoryError", "has no memory for its arrays, or failed")
        builder.ret(self._object_of(result, signature.return_type))

    def _unpack(self, given: Any, argument_type: Any, k: int) -> Any:
        """Return the value of an argument, as a kernel has it."""
        if isinstance(argument_type, types.Array):
            return self._array(given, argument_type, k)
        if isinstance(argument_type, types.UniTuple):
            return self._pair(given, argument_type, k)
        return self._number(given, argument_type)

    def _array(self, given: Any, array_type: Any, k: int) -> Any:
        builder, what = self._builder, f"argument {k}: expected {array_type.dtype}, {array_type.ndim} dimensions"
        self._require_type(given, "PyArray_Type", what)
        num_dimensions = self._field(given, _NUM_DIMENSIONS, _INT32)
        self._require(builder.icmp_signed("==", num_dimensions, ir.Constant(_INT32, array_type.ndim)), what)
        flags = builder.and_(self._field(given, _FLAGS, _INT32), ir.Constant(_INT32, _PLAIN))
        self._require(builder.icmp_signed("==", flags, ir.Constant(_INT32, _PLAIN)), f"{what}, C-contiguous, writable")
        dtype = self._field(given, _DTYPE, _OBJECT)
        self._require(self._is_native(dtype, array_type.dtype), what)
        shape = self._field(given, _SHAPE, _INT64.as_pointer())
        sizes = [builder.load(builder.gep(shape, [ir.Constant(_INT64, d)])) for d in range(array_type.ndim)]
        return plain_array(self._context, builder, array_type, self._field(given, _DATA, _INT64), sizes)

    def _is_native(self, dtype: Any, number_type: Any) -> Any:
        """Return whether a dtype is that of Numba's type, in the byte order of the machine."""
        builder, expected = self._builder, as_dtype(number_type)
        number, order = self._field(dtype, _TYPE_NUMBER, _INT32), self._field(dtype, _BYTE_ORDER, _BYTE)
        numbers = {np.dtype(name).num for name in _SAME.get(expected.name, (expected.name,))}
        is_type = ir.Constant(ir.IntType(1), 0)
        for one in numbers:
            is_type = builder.or_(is_type, builder.icmp_signed("==", number, ir.Constant(_INT32, one)))
        is_native = ir.Constant(ir.IntType(1), 0)
        for sign in (expected.byteorder, "=", "|"):
            is_native = builder.or_(is_native, builder.icmp_signed("==", order, ir.Constant(_BYTE, ord(sign))))
        return builder.and_(is_type, is_native)

    def _pair(self, given: Any, tuple_type: Any, k: int) -> Any:
        builder, what = self._builder, f"argument {k}: expected a tuple of {tuple_type.count} numbers"
        self._require_type(given, "PyTuple_Type", what)
        length = self._api("PyTuple_Size", _INT64, given)
        self._require(builder.icmp_signed("==", length, ir.Constant(_INT64, tuple_type.count)), what)
        items = [self._api("PyTuple_GetItem", _OBJECT, given, ir.Constant(_INT64, j)) for j in range(tuple_type.count)]
        values = [self._number(item, tuple_type.dtype) for item in items]
        return self._context.make_tuple(builder, tuple_type, values)

    def _number(self, given: Any, number_type: Any) -> Any:
        builder = self._builder
        if isinstance(number_type, types.Boolean):
            value = self._api("PyObject_IsTrue", _INT32, given)
            self._require_no_error(builder.icmp_signed("<", value, ir.Constant(_INT32, 0)))
            return builder.icmp_signed("!=", value, ir.Constant(_INT32, 0))
        if isinstance(number_type, types.Float):
            value = self._api("PyFloat_AsDouble", ir.DoubleType(), given)
            self._require_no_error(builder.fcmp_ordered("==", value, ir.Constant(ir.DoubleType(), -1.0)))
            return builder.fptrunc(value, ir.FloatType()) if number_type == types.float32 else value
        integer = self._api("PyNumber_Index", _OBJECT, given)  # also NumPy's integers
        self._require_no_error(builder.icmp_unsigned("==", integer, ir.Constant(_OBJECT, None)))
        convert = "PyLong_AsLongLong" if number_type.signed else "PyLong_AsUnsignedLongLong"
        value = self._api(convert, _INT64, integer)
        self._api("Py_DecRef", ir.VoidType(), integer)
        self._require_no_error(builder.icmp_signed("==", value, ir.Constant(_INT64, -1)))
        assert number_type.bitwidth == 64, number_type
        return value

    def _object_of(self, result: Any, result_type: Any) -> Any:
        builder = self._builder
        if isinstance(result_type, types.NoneType):
            none = self._global("_Py_NoneStruct")
            self._api("Py_IncRef", ir.VoidType(), none)
            return none
        if isinstance(result_type, types.Boolean):
            return self._api("PyBool_FromLong", _OBJECT, builder.zext(result, _INT64))
        assert result_type == types.int64, result_type
        return self._api("PyLong_FromLongLong", _OBJECT, result)

    def _field(self, base: Any, place: int, field_type: Any) -> Any:
        address = self._builder.gep(base, [ir.Constant(_INT64, place)])
        return self._builder.load(self._builder.bitcast(address, field_type.as_pointer()))

    def _global(self, name: str) -> Any:
        return self._module.globals.get(name) or ir.GlobalVariable(self._module, _BYTE, name)

    def _api(self, name: str, result_type: Any, *arguments: Any) -> Any:
        """Call a function of Python."""
        function = self._module.globals.get(name)
        if function is None:
            function_type = ir.FunctionType(result_type, [argument.type for argument in arguments])
            function = ir.Function(self._module, function_type, name)
        return self._builder.call(function, arguments)

    def _require_type(self, given: Any, name: str, message: str) -> None:
        """Raise a TypeError unless the object is of a type, or of one that is derived from it."""
        builder, expected = self._builder, self._global(name)
        of_given = self._field(given, _TYPE_OF_OBJECT, _OBJECT)
        is_other = builder.icmp_unsigned("!=", of_given, expected)
        with builder.if_then(is_other, likely=False):
            is_derived = self._api("PyType_IsSubtype", _INT32, of_given, expected)
            self._require(builder.icmp_signed("!=", is_derived, ir.Constant(_INT32, 0)), message)

    def _require(self, condition: Any, message: str) -> None:
        """Raise a TypeError unless the condition holds."""
        with self._builder.if_then(self._builder.not_(condition), likely=False):
            self._raise("PyExc_TypeError", message)

    def _require_no_error(self, may_be_one: Any) -> None:
        """Return to Python if the last call has raised an exception."""
        builder = self._builder
        with builder.if_then(may_be_one, likely=False):
            raised = self._api("PyErr_Occurred", _OBJECT)
            with builder.if_then(builder.icmp_unsigned("!=", raised, ir.Constant(_OBJECT, None))):
                builder.ret(ir.Constant(_OBJECT, None))

    def _raise(self, exception: str, message: str) -> None:
        builder, text = self._builder, bytearray(f"{self._name} {message}\0".encode())
        constant = ir.Constant(ir.ArrayType(_BYTE, len(text)), text)
        variable = ir.GlobalVariable(self._module, constant.type, self._module.get_unique_name("message"))
        variable.initializer, variable.global_constant, variable.linkage = constant, True, "private"
        kind = builder.load(builder.bitcast(self._global(exception), _OBJECT.as_pointer()))
        self._api("PyErr_SetString", ir.VoidType(), kind, builder.bitcast(variable, _OBJECT))
        builder.ret(ir.Constant(_OBJECT, None))
