"""Cells that fork, stop, and leave processes and threads behind."""

import ctypes
import os
import signal
import sys
import threading
import time

from .channel import write_everywhere
from .registry import act


@act
def forks_and_both_come_back(equation):
    os.fork()


@act
def forks_without_python_knowing(equation):
    ctypes.CDLL(None).fork()


@act
def forks_and_the_parent_leaves(equation):
    if os.fork():
        os._exit(0)


@act
def leaves_a_daemon_of_another_session(equation):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)


@act
def leaves_a_child_that_stops_itself(equation):
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)


@act
def leaves_a_thread(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()


@act
def leaves_a_thread_and_interrupts(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    raise KeyboardInterrupt


@act
def leaves_a_thread_and_exits(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    sys.exit(3)


@act
def leaves_a_thread_that_writes_to_all_descriptors(equation):
    def write():
        while True:
            write_everywhere(b"noise")

    threading.Thread(target=write, daemon=True).start()


@act
def stops_itself(equation):
    os.kill(os.getpid(), signal.SIGSTOP)


@act
def ends_the_process_that_started_it(equation):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)


@act
def stops_the_process_that_started_it(equation):
    os.kill(os.getppid(), signal.SIGSTOP)
