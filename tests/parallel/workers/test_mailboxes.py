from __future__ import annotations

import os
import random
import select
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partrain.kernels.compiler.loading import load
from partrain.kernels.ipc.mailbox import FIELDS
from partrain.parallel.workers.mailboxes import NUM_YIELDS, WAKE, Mailbox, Mailboxes


@pytest.fixture(autouse=True, scope="module")
def kernels() -> None:
    load((*Mailboxes.KERNELS, *Mailbox.KERNELS), "float32")


@pytest.fixture
def boxes() -> Iterator[Mailboxes]:
    made = Mailboxes(3)
    yield made
    made.close()


def command_of(number: int) -> list[int]:
    return [number] * FIELDS


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=FIELDS, max_size=FIELDS), st.booleans())
def test_command_comes_out_as_it_went_in(command: list[int], more_follows: bool) -> None:
    boxes = Mailboxes(2)
    mailbox = Mailbox(boxes.arrays, 1)
    boxes.post(0, command_of(7))
    assert not mailbox.has_command()
    boxes.post(1, command, more_follows=more_follows)
    assert mailbox.has_command()
    assert mailbox.take_command() == command
    assert mailbox.more_follows is more_follows
    assert not mailbox.has_command()
    boxes.close()


def test_each_answer_is_taken_once(boxes: Mailboxes) -> None:
    workers = [Mailbox(boxes.arrays, k) for k in range(3)]
    for k in (0, 2):
        boxes.post(k, command_of(k))
        workers[k].take_command()
    assert boxes.take_answer() is None
    for k in (2, 0):
        workers[k].answer()
    assert [boxes.take_answer() for _ in range(3)] == [0, 2, None]


def test_who_sleeps_is_to_be_woken(boxes: Mailboxes) -> None:
    mailbox = Mailbox(boxes.arrays, 0)
    mailbox.set_asleep(True)
    boxes.set_asleep(True)
    assert boxes.post(0, command_of(5))
    mailbox.take_command()
    assert mailbox.answer()
    mailbox.set_asleep(False)
    boxes.set_asleep(False)
    assert not boxes.post(0, command_of(5))
    assert not mailbox.answer()


def test_successor_knows_nothing_of_what_it_was_not_told(boxes: Mailboxes) -> None:
    boxes.post(1, command_of(5))
    Mailbox(boxes.arrays, 1).set_asleep(True)
    boxes.clear(1)
    successor = Mailbox(boxes.arrays, 1)
    assert boxes.take_answer() is None
    assert not successor.has_command()
    assert not boxes.post(1, command_of(6))
    assert successor.take_command() == command_of(6)


def test_answer_of_the_dead_is_forgotten_with_its_command(boxes: Mailboxes) -> None:
    mailbox = Mailbox(boxes.arrays, 1)
    boxes.post(1, command_of(5))
    mailbox.take_command()
    mailbox.answer()
    boxes.clear(1)
    assert boxes.take_answer() is None


def test_nobody_sleeps_through_a_command_or_an_answer() -> None:
    """Two threads that fall asleep at every chance, at moments that chance chooses; a lost waking would hang them."""
    num_commands, boxes = 5000, Mailboxes(1)
    mailbox = Mailbox(boxes.arrays, 0)
    commands, replies = os.pipe(), os.pipe()
    seen, num_sleeps = list[int](), 0
    chance = random.Random(3)

    def dawdle() -> None:
        end = time.perf_counter() + chance.random() * 2e-5
        while time.perf_counter() < end:
            pass

    def work() -> None:
        for _ in range(num_commands):
            dawdle()
            mailbox.set_asleep(True)
            while not mailbox.has_command():
                os.read(commands[0], 64)
            mailbox.set_asleep(False)
            seen.append(mailbox.take_command()[0])
            dawdle()
            if mailbox.answer():
                os.write(replies[1], WAKE)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for number in range(num_commands):
        dawdle()
        if boxes.post(0, command_of(number)):
            os.write(commands[1], WAKE)
        boxes.set_asleep(True)
        while boxes.take_answer(NUM_YIELDS if number % 2 else 0) is None:
            ready, _, _ = select.select([replies[0]], [], [], 60)
            assert ready, f"command {number}: nobody answers"
            os.read(replies[0], 64)
            num_sleeps += 1
        boxes.set_asleep(False)
    worker.join(60)
    assert seen == list(range(num_commands))
    assert num_sleeps > 100
    for end in (*commands, *replies):
        os.close(end)
    boxes.close()
