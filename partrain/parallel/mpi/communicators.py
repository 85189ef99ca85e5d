"""The MPI communicators of a job, which survivors make again after a rank's death. No other module imports mpi4py.

An elastic job uses User-Level Failure Mitigation (ULFM; Bland et al., doi:10.1177/1094342013488238). After a death:

- An operation with the dead rank fails. The rank that sees it revokes the communicators, so that the operations of all
  other ranks fail as well, wherever they wait.
- All survivors then agree that this happened, and shrink the base communicator to themselves.

Each rank either ends the job or renews the communicators; which, all ranks decide together in `agree`. That is the only
operation on the base communicator apart from those that make communicators, so it never waits for a rank that does
something else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import mpi4py

# Several threads of a rank call MPI, one at a time.
mpi4py.rc.thread_level = "serialized"

from mpi4py import MPI as MPI  # noqa: E402 (its import starts MPI, with the thread level set above)

from partrain.errors import ConfigError  # noqa: E402
from partrain.parallel.mpi.rank_death import RankDied  # noqa: E402

# What Open MPI's `mpiexec --with-ft ulfm` sets for its ranks.
ENABLED = "OMPI_MCA_mpi_ft_enable"
_TRUE = ("1", "true", "yes", "enabled")


@contextmanager
def raising_deaths(*, elastic: bool) -> Iterator[None]:
    """Let an error of MPI that tells of a rank's death be RankDied, in an elastic job."""
    try:
        yield
    except MPI.Exception as error:
        if elastic and (tells_of_death(error) or error.Get_error_class() == MPI.ERR_REVOKED):
            raise RankDied from None
        raise


def tells_of_death(error: MPI.Exception) -> bool:
    """Return whether an operation failed because a rank has died."""
    return error.Get_error_class() in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING)


def require_threads() -> None:
    """Check that several threads of a rank may call MPI, one at a time.

    Raises
    ------
    ConfigError
        They may not.
    """
    if MPI.Query_thread() < MPI.THREAD_SERIALIZED:
        raise ConfigError(
            "--engine mpi: this MPI allows calls from only one thread of a process, and partrain makes calls from two, "
            "one at a time; use an MPI that supports threads (MPI_THREAD_SERIALIZED)"
        )


def why_not_elastic() -> str | None:
    """Return why ranks cannot outlive another one, and what to do; None if they can."""
    library = " ".join(MPI.Get_library_version().partition(",")[0].partition("\n")[0].strip("\0").split())
    if not library.startswith("Open MPI") or not _has_ulfm():
        return (
            f"this MPI ({library}) ends the job when a rank dies, because it has no ULFM; use Open MPI 5 or newer: pip "
            "install 'partrain[mpi]' brings it, with its mpiexec"
        )
    if os.environ.get(ENABLED, "").lower() not in _TRUE:
        return "the job was started so that it ends when a rank dies; start it with Open MPI's mpiexec --with-ft ulfm"
    return None


def _has_ulfm() -> bool:
    """Return whether the functions are there; other libraries than Open MPI have them, too, but no tolerance."""
    try:
        MPI.COMM_WORLD.Is_revoked()
    except NotImplementedError:
        return False
    return True


class Communicators:
    """The communicators of all living ranks.

    Parameters
    ----------
    elastic : whether the job goes on after a rank's death; else an error of MPI is raised as it is.
    num_spares : the number of ranks that wait at first. They are the last ones, so after deaths the first of them work.

    Attributes
    ----------
    everyone, ending : for collective operations of all ranks, and for the last one, which may come while others are
        still in another operation.
    data : for collective operations of the working ranks; a spare has another, of the spares alone.
    notices : for messages from one rank to another.
    num_working : the number of working ranks.
    num_on_host : the number of working ranks on this host; on a spare, of spares.
    """

    everyone: MPI.Intracomm
    data: MPI.Intracomm
    ending: MPI.Intracomm
    notices: MPI.Intracomm
    num_working: int
    num_on_host: int

    def __init__(self, *, elastic: bool, num_spares: int = 0) -> None:
        self._elastic = elastic
        self._base: MPI.Comm = MPI.COMM_WORLD
        self._most_working = max(1, self._base.Get_size() - num_spares)
        # MPI may still write into the buffers of their requests.
        self._revoked: list[MPI.Comm] = []
        if not elastic:
            self._make()
        elif not self._make_together():
            self.renew()

    def agree(self, *, succeeded: bool) -> bool:
        """Return whether all living ranks have succeeded: on all of them the same.

        All ranks must call this, or `renew`. A death that all know is no failure: whoever needed the dead rank has
        failed.
        """
        self._base.Ack_failed()
        try:
            return bool(self._base.Agree(int(succeeded)))
        except MPI.Exception as error:
            if not tells_of_death(error):
                raise
            return False

    def revoke(self) -> None:
        """Let the operations of all ranks fail, except `agree`."""
        for communicator in (self._base, self.everyone, self.data, self.ending, self.notices):
            communicator.Revoke()

    def renew(self) -> list[int]:
        """Make the communicators again, for the ranks that live; all of them must have called `agree` in vain.

        Returns
        -------
        The numbers, in the communicators so far, of the ranks that have died since those were made.
        """
        before = self._base.Get_group()
        while True:
            self._revoked.append(self._base)
            self._base = self._base.Shrink()
            if self._make_together():
                break
        living = self._base.Get_group()
        places = before.Translate_ranks(None, living)
        return [rank for rank, place in enumerate(places) if place == MPI.UNDEFINED]

    def _make_together(self) -> bool:
        """Make the communicators; return whether all ranks could."""
        try:
            with raising_deaths(elastic=True):
                self._make()
        except RankDied:
            self._base.Revoke()  # another rank may be waiting for this one
            return self.agree(succeeded=False)
        return self.agree(succeeded=True)

    def _make(self) -> None:
        base = MPI.Intracomm(self._base)
        rank, self.num_working = base.Get_rank(), min(self._most_working, base.Get_size())
        self.everyone, self.ending, self.notices = base.Dup(), base.Dup(), base.Dup()
        self.data = MPI.Intracomm(base.Split(int(rank >= self.num_working), rank))
        host = self.data.Split_type(MPI.COMM_TYPE_SHARED)
        self.num_on_host = host.Get_size()
        host.Free()
