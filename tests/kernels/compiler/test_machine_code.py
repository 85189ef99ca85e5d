"""Calls of kernels from Python, and how their machine code is linked and loaded.

Shapes: N numbers.
"""

from __future__ import annotations

import numpy as np
import pytest

from partrain.kernels import dense, loops
from partrain.kernels.compiler.flags import Kernel, kernel
from partrain.kernels.compiler.linking import LinkError, link
from partrain.kernels.compiler.loading import load
from partrain.kernels.compiler.machine_code import ABSOLUTE, MachineCode
from partrain.kernels.compiler.object_code import ObjectCode, compile_kernel
from partrain.kernels.ipc import mailbox

TAKES_NUMBERS = "void(int64, uint64, float32, float64, boolean, UniTuple(float64, 2), float64[::1])"


@kernel(TAKES_NUMBERS)
def write_numbers(signed, unsigned, single, double, flag, pair, written_N):
    written_N[0], written_N[1], written_N[2], written_N[3] = signed, unsigned, single, double
    written_N[4], written_N[5], written_N[6] = flag, pair[0], pair[1]


@pytest.fixture(scope="module")
def written():
    load((write_numbers,), "float32")
    return np.zeros(7)


GOOD = (-1, 2**63, 0.1, -1.0, True, (2.5, 3))


def test_numbers_arrive_as_the_types_of_the_signature(written):
    write_numbers(*GOOD, written)
    assert written.tolist() == [-1, 2.0**63, float(np.float32(0.1)), -1, 1, 2.5, 3]
    numpy_numbers = np.int32(-1), np.uint64(7), np.float64(2), np.float32(0.5), np.bool_(False), (1, np.float32(2))
    write_numbers(*numpy_numbers, written)
    assert written.tolist() == [-1, 7, 2, 0.5, 0, 1, 2]


@pytest.mark.parametrize(
    ("place", "given", "error"),
    [
        (0, 1.0, TypeError), (0, "1", TypeError), (0, 2**63, OverflowError), (1, -1, OverflowError),
        (2, "1", TypeError), (3, None, TypeError), (5, (1.0,), TypeError), (5, [1.0, 2.0], TypeError),
        (5, (1.0, "2"), TypeError),
    ],
)  # fmt: skip
def test_wrong_numbers_are_refused(written, place, given, error):
    written[:] = 7
    with pytest.raises(error):
        write_numbers(*GOOD[:place], given, *GOOD[place + 1 :], written)
    with pytest.raises(TypeError, match="write_numbers takes 7 arguments"):
        write_numbers(*GOOD)
    assert (written == 7).all()


def test_arrays_of_another_byte_order_are_refused_and_views_are_taken(written):
    with pytest.raises(TypeError, match="argument 6: expected float64, 1 dimensions"):
        write_numbers(*GOOD, written.astype(">f8"))
    mapped = np.zeros(9).view(np.recarray)
    write_numbers(*GOOD, mapped[1:8])
    assert mapped[1] == -1
    assert mapped[[0, 8]].tolist() == [0, 0]


def test_result_is_an_object_of_python():
    load((mailbox.answer, mailbox.await_answer), "float32")
    boxes = np.zeros(mailbox.size(1), np.int64)
    assert mailbox.await_answer(boxes, 1, 1) == -1
    assert mailbox.answer(boxes, mailbox.box_of(0), 1) is False
    assert type(mailbox.await_answer(boxes, 1, 1)) is int


@pytest.fixture(scope="module")
def dense_backward():
    """A kernel that allocates and reshapes arrays, and its object files."""
    signature = dense.dense_backward_input.declared[0]
    return signature, compile_kernel(dense.dense_backward_input, signature)


def gradient_by(signature, code, name):
    """Return what `dense_backward_input` computes with this machine code."""
    compute = Kernel(dense.dense_backward_input.py_func, (signature,))
    compute.add(signature, code.load(name))
    rng = np.random.default_rng(0)
    dy_NE, w_ED, dx_ND = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5), (5, 70), (3, 70)))
    compute(dy_NE, w_ED, dx_ND)
    np.testing.assert_allclose(dx_ND, dy_NE @ w_ED, rtol=1e-5, atol=1e-5)
    return dx_ND.tobytes()


def test_linked_code_and_object_files_that_llvm_links_compute_the_same(dense_backward):
    signature, files = dense_backward
    linked = MachineCode.from_bytes(link(*files).to_bytes())
    by_llvm = ObjectCode.from_bytes(files.to_bytes())
    assert gradient_by(signature, linked, "linked") == gradient_by(signature, by_llvm, "by_llvm")


def test_what_the_linker_does_not_know_is_an_error(dense_backward):
    _, (files, entry, symbol) = dense_backward
    with pytest.raises(LinkError, match="symbol another is missing"):
        link(files, entry, "another")
    with pytest.raises(LinkError, match="not a 64-bit little-endian ELF file"):
        link((b"MZ", *files), entry, symbol)


def test_code_for_arm64_reaches_what_is_far_away():
    """Its calls reach 128 MB, so they go by jumps of the linker's own; other addresses are in words."""
    from llvmlite import binding as llvm
    from llvmlite import ir

    from partrain.kernels.compiler.runtime_functions import add_runtime_functions

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    machine = llvm.Target.from_triple(triple).create_target_machine(codemodel="jitdefault", jit=True)
    module = ir.Module()
    add_runtime_functions(module)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple = triple
    linked = link((machine.emit_object(parsed),), "NRT_Free", "NRT_MemInfo_alloc")
    far = {relocation.symbol: relocation.place for relocation in linked.relocations}
    assert far.keys() == {"malloc", "free"}
    assert [relocation.kind for relocation in linked.relocations] == [ABSOLUTE, ABSOLUTE]
    words = np.frombuffer(linked.code, np.uint32)
    calls = [k for k, word in enumerate(words) if word >> 26 in (0b100101, 0b000101)]  # BL and B
    targets = [4 * k + 4 * ((int(words[k]) & 0x3FFFFFF ^ 0x2000000) - 0x2000000) for k in calls]
    assert {place - 8 for place in far.values()} <= set(targets)
    for place in far.values():
        assert words[place // 4 - 2 : place // 4].tolist() == [0x58000050, 0xD61F0200]  # ldr x16, #8; br x16


def test_code_that_was_not_linked_is_loaded_from_the_cache(monkeypatch, tmp_path):
    """As on systems whose object files are not ELF."""
    from partrain.kernels.compiler import cache

    def refuse(*_):
        raise LinkError("another system")

    monkeypatch.setattr(cache, "link", refuse)
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path / "cache"))
    compiled, loaded = (Kernel(loops.relu_forward.py_func, loops.relu_forward.declared) for _ in range(2))
    assert load((compiled,), "float64")
    assert not load((loaded,), "float64")
    y = np.zeros(2)
    loaded(np.array([-1.0, 2.0]), y)
    assert y.tolist() == [0, 2]
