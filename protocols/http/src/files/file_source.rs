//! A part of a file as the body of a response, read by a pool.

use std::fs::File;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::task::Poll;

use serveloop::Waker;
use serveloop::service::{Job, Offload};

use super::PIECE;
use crate::source::Source;

/// Reads a piece when the one before has been sent, so that no more is kept than one piece.
pub(super) struct FileSource {
    file: Arc<File>,
    /// What has not been asked for.
    rest: Range<u64>,
    reading: (Offload, Waker),
    job: Option<Job<io::Result<Vec<u8>>>>,
    piece: Vec<u8>,
    sent: usize,
}

impl FileSource {
    pub(super) fn new(file: File, rest: Range<u64>, reading: (Offload, Waker)) -> Self {
        Self {
            file: Arc::new(file),
            rest,
            reading,
            job: None,
            piece: Vec::new(),
            sent: 0,
        }
    }

    /// Asks for the next piece. The memory of the last one is used again.
    fn ask(&mut self) -> io::Result<()> {
        let length = PIECE.min(self.rest.end - self.rest.start);
        let (file, at) = (Arc::clone(&self.file), self.rest.start);
        self.rest.start += length;
        let mut piece = mem::take(&mut self.piece);
        self.sent = 0;

        let read = move || {
            piece.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
            file.read_exact_at(&mut piece, at)?;
            Ok(piece)
        };
        let (pool, waker) = &self.reading;
        let job = pool.submit(waker.clone(), read);
        self.job = Some(job.map_err(|full| io::Error::other(full.to_string()))?);
        Ok(())
    }
}

impl Source for FileSource {
    fn fill(&mut self) -> Poll<io::Result<&[u8]>> {
        if self.sent == self.piece.len() && self.job.is_none() && !self.rest.is_empty() {
            self.ask()?;
        }
        if let Some(job) = &mut self.job {
            let Some(outcome) = job.take() else {
                return Poll::Pending;
            };
            self.job = None;
            self.piece = outcome.map_err(io::Error::other)??;
        }
        Poll::Ready(Ok(&self.piece[self.sent..]))
    }

    fn consume(&mut self, count: usize) {
        self.sent += count;
    }

    fn held(&self) -> usize {
        self.piece.capacity()
    }
}
