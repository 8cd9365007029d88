//! `serve print`: prints what clients send on standard output.

use std::io;
use std::time::{Duration, Instant};

use clap::Args;
use serveloop::protocols::counted;
use serveloop::{Peer, Protocol, ProtocolError, Statistics, Transport};

use crate::serving::{AccessLog, BoundServer, Execution, Outflow, StdoutQueue};

/// How long a client must be silent during a shutdown to count as done. Bytes that it sent earlier
/// may still be on their way through the system.
const SILENCE: Duration = Duration::from_millis(100);

/// Prints what arrives and answers nothing.
#[derive(Debug)]
pub(crate) struct Print {
    outflow: Outflow,
    /// Whether the server is shutting down.
    finishing: bool,
    /// When the client counts as done, unless more arrives.
    finished_at: Option<Instant>,
}

impl Print {
    fn new(stdout_queue: &StdoutQueue) -> Self {
        Self {
            outflow: Outflow::new(stdout_queue),
            finishing: false,
            finished_at: None,
        }
    }

    fn wait_for_silence(&mut self, transport: &Transport<'_>) {
        if self.finishing {
            self.finished_at = transport.now().checked_add(SILENCE);
        }
    }

    /// Prints a datagram. One that finds no room is dropped, because its sender cannot be told to
    /// wait.
    fn print_datagram(&mut self, data: &[u8], peer: &Peer) -> Result<usize, ProtocolError> {
        if !self.outflow.offer(data, || None)? {
            let problem = "dropped a datagram: standard output is read too slowly";
            return Err(ProtocolError::other(problem));
        }
        let length = counted(data.len(), "byte", "bytes");
        AccessLog.note(peer, format_args!("a datagram of {length}"));
        Ok(data.len())
    }
}

impl Protocol for Print {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        if transport.peer().is_datagram() {
            return self.print_datagram(data, transport.peer());
        }

        if !self.outflow.offer(data, || Some(transport.waker()))? {
            self.finished_at = None;
            transport.pause_reading();
            return Ok(0);
        }

        self.wait_for_silence(transport);
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.finished_at
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        transport.resume_reading();
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.finishing = true;
        if !transport.is_paused() {
            self.wait_for_silence(transport);
        }
    }
}

/// Prints what clients send on standard output, and never replies.
///
///   $ serveloop serve print
///   listening on tcp://127.0.0.1:9999
///   hello from client
///
/// The last line is what a client typed in another terminal:
///
///   $ nc 127.0.0.1 9999
///   hello from client
///
/// The log, on standard error, has a line for each client that connects or leaves, and for each
/// datagram with its sender and length:
///
///   $ serveloop serve print --listen udp://127.0.0.1:9999
///   $ nc -u 127.0.0.1 9999
///
/// A pipe or a file gets the bytes unchanged. On a terminal, control characters other than line ends
/// and tabs, and bytes that are not UTF-8, are shown as \u{1b} or \xff, so that no client controls the
/// terminal. Each piece of data is printed whole as it arrives, with nothing added and nothing from
/// other clients inside; pieces from several clients follow each other as they arrive. (With --model
/// forking each process prints on its own, and in a pipe pieces of more than 4 KiB can mix.)
///
/// When standard output is read too slowly, clients have to wait, and datagrams are dropped and
/// counted in the log. When its reader goes away, the log says how much was lost, and a client that
/// sends something is disconnected; the server keeps running. If the server is started with standard
/// output closed (>&-), it prints to /dev/null, and everything is lost.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct PrintOptions {}

impl PrintOptions {
    pub(crate) fn serve(self, server: BoundServer, execution: Execution) -> io::Result<Statistics> {
        let stdout_queue = StdoutQueue::new(execution.is_forking())?;
        let factory_outlet = stdout_queue.clone();
        let served = execution.serve(server, move |_: &Peer| Some(Print::new(&factory_outlet)));
        stdout_queue.finish();
        served
    }
}
