"""A team of threads: each rank runs the same function, as processes would, one at a time between two gatherings."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor


class Member:
    def __init__(self, rank, size, slots, barrier, turn):
        self.rank, self.size = rank, size
        self.slots, self.barrier, self.turn = slots, barrier, turn

    def gather(self, mine):
        self.slots[self.rank] = pickle.dumps(mine)
        self.turn.release()  # products that run at the same time may be rounded otherwise
        self.barrier.wait(timeout=60)
        found = [pickle.loads(sent) for sent in self.slots]
        self.barrier.wait(timeout=60)
        self.turn.acquire()
        return found

    def run(self, function):
        try:
            with self.turn:
                return function(self)
        except BaseException:
            self.barrier.abort()
            raise


def run_team(size, function):
    """What function(team) gives on each rank, in rank order."""
    shared = [None] * size, threading.Barrier(size), threading.Lock()
    with ThreadPoolExecutor(size) as pool:
        waiting = [pool.submit(Member(rank, size, *shared).run, function) for rank in range(size)]
        return [one.result() for one in waiting]
