"""Runs a command as a background job of a terminal that stops those that write to it (stty tostop).

The command is the arguments. Its standard input and standard error are the terminal, its standard
output is ours. Prints "stopped" as soon as it is stopped, and passes its status on.
"""
import fcntl
import os
import pty
import signal
import sys
import termios

person, terminal = pty.openpty()
modes = termios.tcgetattr(terminal)
modes[3] |= termios.TOSTOP
termios.tcsetattr(terminal, termios.TCSANOW, modes)

os.setsid()
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.dup2(terminal, 0)
    os.dup2(terminal, 2)
    os.execv(sys.argv[1], sys.argv[1:])

signal.signal(signal.SIGTERM, lambda *_: os.kill(job, signal.SIGTERM))
_, status = os.waitpid(job, os.WUNTRACED)
if os.WIFSTOPPED(status):
    print("stopped", flush=True)
    os.kill(job, signal.SIGKILL)
    _, status = os.waitpid(job, 0)
sys.exit(os.waitstatus_to_exitcode(status))
