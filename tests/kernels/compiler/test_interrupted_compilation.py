from __future__ import annotations

from tests.kernels.compiler.test_shared_compilation import MANY_KERNELS
from tests.kernels.compiler.tiny_kernel import kernel_folder, run, start
from tests.processes import wait_until

USE_ONE_AFTER_THE_OTHER = """
import many
from partrain.kernels.compiler import processes
from partrain.kernels.compiler.loading import load
from partrain.system import work_progress

work_progress.PROGRESS_SECONDS = 0
processes.available_processors = lambda: 1
kernels = [getattr(many, f"add_{number}") for number in range(8)]
load(kernels, "float32", announce=lambda text: print(text, flush=True), warn=print)
print("cached", sum(not kernel.was_compiled for kernel in kernels))
"""


def test_what_was_compiled_before_a_kill_is_kept_and_progress_is_said(tmp_path):
    (tmp_path / "many.py").write_text(MANY_KERNELS)
    process = start(USE_ONE_AFTER_THE_OTHER, sources=tmp_path, folder=tmp_path)
    assert process.stdout.readline() == "compiling kernels, first run only\n"
    said = [process.stdout.readline() for _ in range(3)]
    process.kill()
    process.communicate(timeout=60)
    assert said == [f"compiling: {count} of 8 kernels\n" for count in (1, 2, 3)]
    (kernel_folder(tmp_path) / ".add_1.kernel.99999999.tmp").write_bytes(b"left half written")
    *_, last = run(USE_ONE_AFTER_THE_OTHER, sources=tmp_path, folder=tmp_path).splitlines()
    assert last.partition(" ")[0] == "cached"
    assert 3 <= int(last.partition(" ")[2]) < 8
    wait_until(lambda: not list(kernel_folder(tmp_path).glob(".*")), "that nothing half written is left")
