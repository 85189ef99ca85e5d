"""When a rank gives up waiting for the others: one has failed or hangs, or mpiexec is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partrain.errors import FailedRun, PartrainError
from partrain.parallel.mpi import liveness
from partrain.parallel.mpi.cut_off import limit_silence
from partrain.parallel.mpi.notices import Notices
from partrain.parallel.mpi.rank_death import RankFailed

# How long a rank waits for the others after mpiexec has ended: they may have ended too, and nothing reports that.
ORPHAN_SECONDS = 3.0


@dataclass(frozen=True)
class RankPlace:
    """A rank's name, for messages, and the addresses of its host."""

    name: str
    addresses: frozenset[str] = frozenset()


class Patience:
    """Ends waits that would not end.

    Parameters
    ----------
    places : as the attribute.
    notices : the messages of the others.
    warn : called with a warning.
    is_orphan : returns whether mpiexec has ended.
    leave : called with the reason; ends this process, which writes nothing any more.
    elastic : whether the job goes on after a rank's death.

    Attributes
    ----------
    places : the names of all ranks and the addresses of their hosts; they may be set again.
    is_over : whether this rank has given up a wait.
    reported_dead : the dead spares that rank 0 has reported.
    """

    def __init__(
        self,
        places: Sequence[RankPlace],
        notices: Notices,
        warn: Callable[[str], None],
        is_orphan: Callable[[], bool],
        leave: Callable[[str], object],
        *,
        elastic: bool,
    ) -> None:
        self.places, self._notices, self._warn = places, notices, warn
        self._is_orphan, self._leave, self._elastic = is_orphan, leave, elastic
        self.reported_dead: set[int] = set()
        self.is_over = False

    def check(self, waited_s: float) -> None:
        """Give up a wait that will not end.

        Parameters
        ----------
        waited_s : how long this rank has waited.

        Raises
        ------
        RankFailed, FailedRun
            Another rank has failed, or hangs.
        """
        if self._notices.dead_spares != self.reported_dead:
            self._report_dead_spares()
        try:
            self._require_others(waited_s)
        except PartrainError:
            self.is_over = True
            raise

    def limit_silence(self) -> None:
        """Let MPI take ranks for dead whose host does not answer; to be called often, as MPI connects late."""
        if self._elastic:
            own = self.places[self._notices.rank].addresses
            others = frozenset[str]().union(*(place.addresses for place in self.places)) - own
            limit_silence(others, liveness.CUT_OFF_SECONDS, liveness.ASK_SECONDS)

    def _require_others(self, waited_s: float) -> None:
        notices = self._notices
        if notices.failures:
            rank = min(notices.failures)
            exit_code, text = notices.failures[rank]
            raise RankFailed(f"{self.places[rank].name.partition(' on ')[0]} failed: {text}", exit_code)
        if waited_s > ORPHAN_SECONDS and self._is_orphan():
            raise FailedRun(f"waited {waited_s:.0f} s for the other ranks: mpiexec is gone, and they do not answer")
        if waited_s < liveness.ASK_SECONDS:
            return
        now = time.monotonic()
        if notices.liveness is None:
            names = [place.name for place in self.places]
            notices.liveness = liveness.LivenessCheck(
                notices.rank, names, notices.others(), now, elastic=self._elastic, is_spare=notices.is_spare
            )
        if notices.liveness.must_ask(now):
            notices.ask_others()
            notices.liveness.check(self._warn)
            if self._elastic:
                self._leave_if_cut_off(notices.liveness)

    def _leave_if_cut_off(self, check: liveness.LivenessCheck) -> None:
        """Leave the job if this host is cut off from most ranks.

        Of two sides that cannot hear each other, at most one goes on: the one with more than half of the ranks, or with
        half of them and rank 0.
        """
        own = self.places[self._notices.rank].addresses
        silent = check.silent_for(liveness.ISOLATED_SECONDS)
        if all(self.places[rank].addresses == own for rank in silent):
            return
        num_ranks = 1 + sum(1 for _ in self._notices.others())
        balance = 2 * (num_ranks - len(silent)) - num_ranks
        if balance < 0 or (balance == 0 and 0 in silent):
            self._leave(
                f"no answer from {len(silent)} of {num_ranks} ranks for {liveness.ISOLATED_SECONDS:g} s: this host is "
                "cut off; this rank ends, writes nothing any more, and the others go on without it"
            )

    def _report_dead_spares(self) -> None:
        """Let rank 0 say which spares have died."""
        if self._notices.rank == 0:
            new, left = self._notices.dead_spares - self.reported_dead, self._notices.num_spares
            names = " and ".join(self.places[rank].name for rank in sorted(new))
            still = "no spare is" if left == 0 else "1 spare is" if left == 1 else f"{left} spares are"
            self._warn(f"{names} (spare) died; {still} left, and the training is not disturbed")
        self.reported_dead = set(self._notices.dead_spares)
        self._notices.liveness = None  # it waits for their answers
