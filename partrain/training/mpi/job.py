"""Runs a training run or a benchmark as an MPI job: rank 0 leads, and the other ranks follow."""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from partrain.errors import ConfigError, MissingPackage, PartrainError
from partrain.parallel.mpi.launcher import Heartbeat, promised_ranks, removing_segments_at_end, undo_binding
from partrain.parallel.mpi.rank_death import RankDied
from partrain.parallel.workers.fork_server import start_fork_server
from partrain.store.checkpoint import Checkpoint
from partrain.system.messages import Messages
from partrain.system.signals import Interrupted, Interruption, handle_signals_again
from partrain.training.coordinator import Coordinator
from partrain.training.initial_parameters import fit_parameters
from partrain.training.mpi.agreement import require_same_command, require_same_partrain
from partrain.training.mpi.initial_state import InitialState
from partrain.training.resources import held_resources, training_resources
from partrain.training.run_output import RunOutput
from partrain.training.session import RankSession, Session
from partrain.training.verification.verification import follow_verification

if TYPE_CHECKING:  # its import starts MPI
    from partrain.parallel.mpi.communicator import Communicator

Result = TypeVar("Result")

# The kernels of nearly all runs. The fork server starts before MPI, so rank 0 cannot send the configured ones yet.
LIKELY_KERNELS = ("fast", "float32")


def join_ranks(
    num_workers: int | None,
    warn: Callable[[str], None],
    received: Interruption,
    *,
    elastic: bool = False,
    num_spares: int = 0,
) -> Communicator:
    """Start MPI.

    Parameters
    ----------
    num_workers : the number of workers; 0: no process will be started.
    warn, received, num_spares : as for `Communicator`.
    elastic : whether the job shall go on after a rank's death.

    Raises
    ------
    UserError
        MPI is not installed, or sees only this process although the launcher started several.

    Side effects
    ------------
    Undoes mpiexec's core binding of this process, starts a process that removes MPI's files if mpiexec is killed, and
    the fork server. That happens before MPI starts, so that no child process inherits MPI's state.
    """
    undo_binding(os.environ)
    kernels, dtype = LIKELY_KERNELS
    with removing_segments_at_end(os.environ, elastic=elastic) as heartbeat:
        if num_workers != 0:
            start_fork_server(kernels, dtype)
        group = _start_mpi(warn, received, heartbeat, num_spares)
    promised = promised_ranks(os.environ)
    if group.everyone.size == 1 and promised is not None:
        name, number = promised
        group.close()
        raise ConfigError(
            f"--engine mpi: {name} says that {number} processes were started, but MPI sees only this one: the launcher "
            "and mpi4py use different MPI libraries. With Slurm, try srun --mpi=pmix, or the mpiexec of the MPI "
            "library that mpi4py uses; nothing was trained"
        )
    return group


def _start_mpi(
    warn: Callable[[str], None], received: Interruption, heartbeat: Heartbeat | None, num_spares: int
) -> Communicator:
    try:
        from partrain.parallel.mpi.communicator import Communicator
    except ModuleNotFoundError as error:
        if error.name != "mpi4py":
            raise
        raise MissingPackage("mpi4py", "mpi", "--engine mpi") from None
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"--engine mpi: mpi4py finds no MPI library ({error}); pip install 'partrain[mpi]', or load the "
            "cluster's MPI"
        ) from error
    handle_signals_again()
    return Communicator(warn, received, heartbeat, num_spares)


def run_on_ranks(
    lead: Callable[[Session], Result],
    follow: Callable[[Session], object],
    asked: dict[str, Any],
    num_workers: int | None,
    command_line: Sequence[str],
    messages: Messages,
    interruption: Interruption,
    *,
    elastic: bool = False,
    num_spares: int = 0,
) -> Result | None:
    """Run a job on this rank and the other ranks that mpiexec started.

    Parameters
    ----------
    lead : called on rank 0; it reads all input and broadcasts the initial state.
    follow : called on the other ranks.
    elastic : whether the job goes on after a rank's death: the survivors then call `lead` or `follow` again.
    num_spares : how many ranks wait until one is needed.
    asked : the command-line options that must be the same on all ranks.
    num_workers : the number of workers of this rank; None: the host's processors, divided among its ranks.
    command_line, messages, interruption : as for a training run without MPI.

    Returns
    -------
    The result of `lead` on rank 0; None on the other ranks.

    Raises
    ------
    SystemExit
        The job failed or was interrupted. One rank has printed the cause.
    """
    joining = join_ranks(num_workers, messages.warn, interruption, elastic=elastic, num_spares=num_spares)
    with contextlib.closing(joining) as ranks:
        in_job = RankSession(ranks, received=interruption)

        def attempt() -> tuple[Result | None, Interrupted | None]:
            if ranks.everyone.size > 1 or ranks.has_lost_ranks:
                messages.set_rank(ranks.name, only_warnings=ranks.rank > 0)
            if elastic and not ranks.has_lost_ranks:
                ranks.require_elastic(num_spares)
            own_workers = ranks.num_processors if num_workers is None else num_workers
            session = Session(own_workers, command_line, messages, Interruption(), ranks=in_job)
            return _work(lead, follow, asked, session, ranks)

        # Deferred until the end: mpiexec signals all ranks when one fails, and the failure must still be reported.
        with interruption.deferred():
            try:
                while True:
                    try:
                        result, interrupted = attempt()
                        in_job.report_recovery(messages)  # if there was nothing left to train
                        break
                    except RankDied:
                        in_job.recover(messages)
            except BaseException as error:
                _end_failed(ranks, error, messages)
        _end_well(ranks, interrupted, messages)
        return result


def _end_well(ranks: Communicator, interrupted: Interrupted | None, messages: Messages) -> None:
    """Let all ranks end together: now if the job was interrupted, else when this program ends."""
    if interrupted is None:
        ranks.leave_at_exit()
        return
    if ranks.rank == 0:
        messages.error(f"ended by {interrupted}")
    ranks.await_others()
    ranks.abort_if_stuck(interrupted.exit_code)
    raise SystemExit(interrupted.exit_code)


def _work(
    lead: Callable[[Session], Result],
    follow: Callable[[Session], object],
    asked: dict[str, Any],
    session: Session,
    ranks: Communicator,
) -> tuple[Result | None, Interrupted | None]:
    """Lead or follow until all ranks have ended; return the result of `lead`, and the interruption that ended it."""
    result, interrupted = None, None
    try:
        ranks.exchange_names()
        require_same_partrain(ranks.everyone, socket.gethostname())
        require_same_command(ranks.everyone, asked, socket.gethostname())
        if ranks.rank == 0:
            result = lead(session)
        elif ranks.is_spare:
            _stand_by(session, ranks)
        else:
            follow(session)
    except Interrupted as ending:
        interrupted = ending
    ranks.finish(0 if interrupted is None else interrupted.number)
    return result, interrupted


def _stand_by(session: Session, ranks: Communicator) -> None:
    """Hold data and kernels until the job ends, or a death makes this rank a working one."""
    content = ranks.everyone.broadcast(None)
    if not content:
        return
    with held_resources(InitialState.from_bytes(content).config, session):
        session.announce_run(None)
        if number := ranks.stand_by():
            raise Interrupted(number)


def _end_failed(ranks: Communicator, error: BaseException, messages: Messages) -> NoReturn:
    """Print why this rank failed, tell the other ranks, wait until they have saved, and exit."""
    exit_code = 1
    if isinstance(error, PartrainError | MemoryError):
        exit_code = getattr(error, "exit_code", 1)
        if ranks.report_failure(error, exit_code):
            messages.error(str(error) or "there is not enough memory for this process")
    else:
        traceback.print_exception(error)
        messages.error(f"a defect of the program: {type(error).__name__}")
        ranks.report_failure(error, exit_code)
    ranks.await_others()
    ranks.abort_if_stuck(exit_code)
    raise SystemExit(exit_code) from error


def follow_training(session: Session) -> None:
    """Make the same steps and evaluations as rank 0, but write no files; for training and verification.

    Raises
    ------
    UserError, FailedRun, Interrupted
        As for a new run.
    """
    assert session.ranks is not None
    content = session.ranks.group.everyone.broadcast(None)
    if not content:
        return
    state = InitialState.from_bytes(content)
    with training_resources(state.config, None, session, lambda plan: None) as resources:
        plan = resources.plan
        if state.replay is not None:
            follow_verification(state, resources, session)
            return
        session.announce_run(None)
        coordinator = Coordinator(resources, session, RunOutput.of_run(None, plan, session))
        if state.metadata is not None:
            coordinator.restore(Checkpoint(state.tensors, state.metadata), [], 0.0)
        elif state.tensors:
            fit, dtype = fit_parameters(plan.network, state.tensors), plan.config.training.dtype
            coordinator.begin_with(fit.fill(plan.network, state.tensors, plan.config.seed, dtype))
        coordinator.train()
        if coordinator.completed:
            coordinator.test()
        elif session.interruption.received is not None:
            raise Interrupted(session.interruption.received)
