"""What a worker does: it computes tiles of the network, at the coordinator's command, until its pipe ends.

A tile is a pure function of the parameters and of the indices of its examples. So it does not matter which
worker computes it, nor how often.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterable
from multiprocessing.connection import Connection

from partrain.kernels.compiler.flags import Kernel
from partrain.kernels.compiler.loading import load
from partrain.network.layers import Layer
from partrain.parallel.update.parameter_update import UpdateHelper
from partrain.parallel.workers.commands import Command
from partrain.parallel.workers.mailboxes import WAKE, Mailbox
from partrain.parallel.workers.tile_computer import Computation, TileComputer, tile_kernels
from partrain.parallel.workers.waiting import SPIN_SECONDS, spin
from partrain.system.fault_injection import kill_point
from partrain.system.parent_death import continue_after_parent
from partrain.system.shared_arrays import SharedArrays
from partrain.system.signals import SIGNALS_OF_RANKS

# The first byte of a reply, which one more byte, or a text, follows. There is none to a command that was carried out
# (see `parallel.workers.mailboxes`).
HELLO, ERROR = b"H", b"E"
# No message through a pipe is longer.
REPLY_BYTES = 8192


def worker_kernels(kernels: str, kinds: Iterable[type[Layer]], *, augments: bool) -> tuple[Kernel, ...]:
    """Return the kernels that a worker process calls; the parameters are those of `tile_kernels`."""
    return (*tile_kernels(kernels, kinds, augments=augments), *UpdateHelper.kernels(kernels), *Mailbox.KERNELS)


def work(
    commands: Connection,
    replies: Connection,
    boxes: SharedArrays,
    number: int,
    num_workers: int,
    computation: Computation,
    preload_module: str,
) -> None:
    """Run a worker process: say hello, then carry out commands until their pipe ends.

    Through the pipe of replies go HELLO with whether the kernels were preloaded by the fork server, ERROR with a
    traceback (after which the worker goes on), and what wakes the coordinator.

    Parameters
    ----------
    commands, replies : the worker's ends of its pipes.
    boxes, number : those of its `Mailbox`.
    num_workers : how many there are.
    computation : what it computes on.
    preload_module : by its presence is seen that the fork server has loaded the kernels.
    """
    # Read and written as they are, for a message is never longer than one write: without the framing of `Connection`,
    # which reads each message in two calls.
    source, target = commands.fileno(), replies.fileno()
    # A command may take a minute, and the coordinator may be killed meanwhile: an end of the pipe is looked for
    # between the calls that a command consists of, too.
    hang_up = select.poll()
    hang_up.register(source, 0)
    with contextlib.suppress(ConnectionError):  # the coordinator is gone
        try:
            was_preloaded = preload_module in sys.modules
            ignore_signals()
            continue_after_parent()
            kill_point("worker: start-up")
            network, augments = computation.network, computation.augment is not None
            load(worker_kernels(computation.kernels, network.kinds, augments=augments), computation.dtype)
            computer = TileComputer(computation)
            helper = UpdateHelper(network, computation.arrays, number, num_workers)
            mailbox = Mailbox(boxes, number, helper.calls)
            os.write(target, HELLO + (b"1" if was_preloaded else b"0"))
            while command := _receive(mailbox, source, helper):
                kill_point("worker: before computing")
                try:
                    computer.carry_out(command, is_wanted=lambda: not hang_up.poll(0))
                except Exception:
                    os.write(target, _report())
                else:
                    kill_point("worker: before answering")
                    if mailbox.answer():
                        os.write(target, WAKE)
                    kill_point("worker: after answering")
        except ConnectionError:
            raise
        except Exception:
            os.write(target, _report())
    kill_point("worker: shutting down")


def _receive(mailbox: Mailbox, source: int, helper: UpdateHelper) -> Command | None:
    """Return the next command, or None at the end of the pipe that wakes the worker. Help with updates meanwhile."""
    if not (mailbox.more_follows and spin(lambda: mailbox.await_command(helper.help), SPIN_SECONDS)):
        mailbox.say_asleep(True)
        while not mailbox.has_command():
            if not os.read(source, REPLY_BYTES):
                return None
        mailbox.say_asleep(False)
    return Command.decode(mailbox.take_command())


def _report() -> bytes:
    """Return the message that tells of the exception being handled; short enough to go out in one write.

    The coordinator would wait for the rest of a longer one, if the worker were stopped between two writes.
    """
    return ERROR + traceback.format_exc()[-4000:].encode()[: REPLY_BYTES - 1]


def ignore_signals() -> None:
    """Leave to the coordinator what reaches the whole process group: from a terminal, or from mpiexec (SIGUSR1)."""
    for number in SIGNALS_OF_RANKS:
        signal.signal(number, signal.SIG_IGN)
