"""The main loop of a worker process: it carries out the coordinator's commands until its pipe ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection

from partrain.errors import DataError
from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.compiler.loading import load
from partrain.network.layers import Layer
from partrain.parallel.workers.commands import Command, StepsCommand, decode
from partrain.parallel.workers.mailboxes import NUM_YIELDS, WAKE, Mailbox
from partrain.parallel.workers.planned_steps import StepMember, makes_steps
from partrain.parallel.workers.step_examples import ExampleChanges
from partrain.parallel.workers.tile_computer import Computation, TileComputer, tile_kernels
from partrain.parallel.workers.waiting import SPIN_SECONDS, spin
from partrain.system.fault_injection import kill_point
from partrain.system.freed_memory import keep_freed_memory
from partrain.system.parent_death import continue_after_parent
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import SIGNALS_OF_RANKS

# The first byte of a reply. HELLO is followed by one more byte, ERROR by a traceback, BAD_DATA by a message for people.
# A command that was carried out is answered through the mailbox.
HELLO, ERROR, BAD_DATA = b"H", b"E", b"D"
# The maximum length of a message through a pipe.
REPLY_BYTES = 8192


def worker_kernels(kernels: str, layers: Iterable[Layer], changes: ExampleChanges) -> tuple[Kernel, ...]:
    """Return the kernels that a worker process calls; the parameters are those of `tile_kernels`."""
    of_series = StepMember.KERNELS if kernels == "fast" else ()
    return (*tile_kernels(kernels, layers, changes), *of_series, *Mailbox.KERNELS)


def work(
    commands: Connection,
    replies: Connection,
    boxes: SharedArrays,
    number: int,
    computation: Computation,
    preload_module: str,
) -> None:
    """Run a worker process: say hello, then carry out commands until the pipe `commands` ends.

    Through the pipe `replies` it sends HELLO and whether the fork server had preloaded the kernels; ERROR and a
    traceback, or BAD_DATA and a message, after which the worker goes on; and WAKE, which wakes the coordinator.

    Parameters
    ----------
    commands, replies : the worker's ends of its two pipes.
    boxes, number : the arrays of the mailboxes, and the worker's number.
    computation : the network, the arrays and the tiling that the worker computes with.
    preload_module : if this module is loaded, the fork server had preloaded the kernels.
    """
    # No message is longer than one write, so plain reads and writes do. `Connection` would frame each message and read
    # it in two calls.
    source, target = commands.fileno(), replies.fileno()
    # A command may take a minute, and the coordinator may be killed meanwhile. So the worker looks for the end of the
    # pipe also between the parts of a command.
    hang_up = select.poll()
    hang_up.register(source, 0)
    with contextlib.suppress(ConnectionError):  # the coordinator has died
        try:
            was_preloaded = preload_module in sys.modules
            ignore_signals()
            continue_after_parent()
            keep_freed_memory()
            kill_point("worker: start-up")
            layers, changes = computation.network.layers, computation.changes
            load(worker_kernels(computation.kernels, layers, changes), computation.dtype)
            computer = TileComputer(computation)
            member = StepMember(computation, computer, boxes["members"]) if makes_steps(computation) else None
            mailbox = Mailbox(boxes, number)
            os.write(target, HELLO + (b"1" if was_preloaded else b"0"))
            while numbers := _next_command(mailbox, source):
                kill_point("worker: before computing")
                try:
                    _carry_out(decode(numbers), computer, member, lambda: not hang_up.poll(0))
                except DataError as error:
                    os.write(target, BAD_DATA + str(error).encode()[: REPLY_BYTES - 1])
                except Exception:
                    os.write(target, _error_message())
                else:
                    kill_point("worker: before answering")
                    if mailbox.answer():
                        os.write(target, WAKE)
                    kill_point("worker: after answering")
        except ConnectionError:
            raise
        except Exception:
            os.write(target, _error_message())
    kill_point("worker: shutting down")


def _carry_out(
    command: Command | StepsCommand, computer: TileComputer, member: StepMember | None, is_wanted: Callable[[], bool]
) -> None:
    if isinstance(command, StepsCommand):
        assert member is not None
        member.carry_out(command, is_wanted)
    else:
        computer.carry_out(command, is_wanted)


def _next_command(mailbox: Mailbox, source: int) -> list[int] | None:
    """Return the next command as numbers, or None at the end of the pipe."""
    if not (mailbox.more_follows and spin(lambda: mailbox.has_command(NUM_YIELDS), SPIN_SECONDS)):
        mailbox.set_asleep(True)
        while not mailbox.has_command():
            if not os.read(source, REPLY_BYTES):
                return None
        mailbox.set_asleep(False)
    return mailbox.take_command()


def _error_message() -> bytes:
    """Return the message that reports the exception being handled, short enough for one write.

    If a longer one took two writes and the worker were stopped between them, the coordinator would wait for the rest.
    """
    return ERROR + traceback.format_exc()[-4000:].encode()[: REPLY_BYTES - 1]


def ignore_signals() -> None:
    """Ignore the signals that reach the whole process group, from a terminal or from mpiexec (SIGUSR1).

    The coordinator handles them.
    """
    for number in SIGNALS_OF_RANKS:
        signal.signal(number, signal.SIG_IGN)
