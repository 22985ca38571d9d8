"""Cells that close, read and write the descriptors by which they are answered for."""

import contextlib
import os
import socket
import threading
import time

from .registry import act


@act
def closes_all_descriptors(equation):
    os.closerange(3, 256)


@act
def closes_all_descriptors_and_leaves_a_thread(equation):
    threading.Thread(target=time.sleep, args=(3600,)).start()
    os.closerange(0, 256)


@act
def opens_files_in_place_of_the_channel(equation):
    os.closerange(3, 256)
    equation.kept = [os.open(os.devnull, os.O_RDWR) for _ in range(20)]


@act
def opens_sockets_in_place_of_the_channel(equation):
    os.closerange(3, 256)
    KEPT.extend(socket.socketpair() for _ in range(20))


KEPT: list[object] = []


def write_everywhere(content):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, content)


@act
def writes_garbage_to_all_descriptors(equation):
    write_everywhere(b"\x80\x04garbage" * 100)


@act
def writes_half_a_message_and_hangs(equation):
    write_everywhere(b"cell" + b"\0" * 7 + b"\1" + b"\0" * 6)
    time.sleep(3600)


@act
def claims_a_message_of_many_bytes(equation):
    write_everywhere(b"cell" + (2**64 - 1).to_bytes(8, "big") + b"\xff" * 16)


@act
def reads_from_all_descriptors(equation):
    for descriptor in range(3, 64):
        try:
            os.set_blocking(descriptor, False)
            os.read(descriptor, 1 << 20)
        except OSError:
            pass


@act
def makes_all_descriptors_blocking(equation):
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.set_blocking(descriptor, True)
