//! A broadcast channel and two tasks for each member on tokio's runtime of one thread: one publishes what
//! the member says, the other sends what comes.

use std::io::{self, ErrorKind};
use std::net::TcpListener;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Builder;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::message::{GREETING, first};

const QUEUED_MOST: usize = 256;
const READ_SIZE: usize = 4 * 1024;

type Message = std::sync::Arc<[u8]>;

pub(crate) fn serve(listener: TcpListener) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(accept(listener))
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (all, _) = broadcast::channel(QUEUED_MOST);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(welcome(stream, all.clone(), all.subscribe()));
    }
}

async fn welcome(
    mut stream: TcpStream,
    all: Sender<Message>,
    mine: Receiver<Message>,
) -> io::Result<()> {
    stream.write_all(GREETING).await?;
    let (reader, writer) = stream.into_split();
    tokio::spawn(tell(writer, mine));
    hear(reader, all).await
}

async fn tell(mut writer: OwnedWriteHalf, mut mine: Receiver<Message>) -> io::Result<()> {
    loop {
        match mine.recv().await {
            Ok(message) => writer.write_all(&message).await?,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

/// Has no buffer as long as the member says nothing.
async fn hear(reader: OwnedReadHalf, all: Sender<Message>) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        reader.readable().await?;
        unread.reserve(READ_SIZE);
        match reader.try_read_buf(&mut unread) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        while let Some(message) = first(&unread) {
            let length = message.len();
            let _ = all.send(message.into());
            unread.drain(..length);
        }
        if unread.is_empty() {
            unread = Vec::new();
        }
    }
}
