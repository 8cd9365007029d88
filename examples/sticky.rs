//! Sticky packets: messages that are sent one by one over a stream may arrive joined or cut, since
//! a stream consists of bytes, not messages. Framing restores the boundaries. Datagrams never lose
//! them. Run `cargo run --example sticky` to see what each read returns, and the frames in it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use serveloop::ProtocolError;
use serveloop::framing::{Encoder, FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::testing::MemorySession;

type Outcome = Result<(), ProtocolError>;
const MESSAGES: [&str; 3] = ["hello", "world", "egon"];
/// The sizes of the receiver's buffers: one that holds everything, or small ones first.
const READS: [&[usize]; 2] = [&[1024], &[1, 5, 1024]];

/// Prints each message.
struct Printed;

impl FrameProtocol for Printed {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        frame: &[u8],
        _: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Outcome {
        print(frame);
        Ok(())
    }
}

fn print(bytes: &[u8]) {
    print!(" \"{}\"", bytes.escape_ascii());
}

/// Returns the receiving end of a connection over which each of `messages` was sent in a separate
/// call.
fn sent(messages: &[Vec<u8>]) -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    for message in messages {
        sender.write_all(message)?;
    }
    // Wait for everything, as a receiver does that is slower than the sender.
    let total = messages.concat().len();
    while receiver.peek(&mut vec![0; total])? < total {}
    Ok(receiver)
}

/// Reads into one buffer after another, and prints what each read returns.
fn read(mut stream: TcpStream, sizes: &[usize]) -> io::Result<Vec<Vec<u8>>> {
    print!("  reads: ");

    let mut pieces = Vec::new();
    for size in sizes {
        let mut buffer = vec![0; *size];
        let count = stream.read(&mut buffer)?;
        print(&buffer[..count]);
        pieces.push(buffer[..count].to_vec());
    }

    println!();
    Ok(pieces)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("over TCP, as it is:");
    for sizes in READS {
        read(sent(&MESSAGES.map(Vec::from))?, sizes)?;
    }

    println!("over TCP, each message after its length:");
    let framing = LengthPrefix::u32(1024);
    let mut framed = [const { Vec::new() }; 3];
    for (message, bytes) in MESSAGES.iter().zip(&mut framed) {
        framing.encode(message.as_bytes(), |piece| bytes.extend_from_slice(piece))?;
    }
    for sizes in READS {
        let pieces = read(sent(&framed)?, sizes)?;
        print!("  frames:");
        let mut session = MemorySession::new(Framed::new(framing, Printed));
        pieces.iter().for_each(|piece| session.receive(piece));
        println!();
    }

    println!("over UDP, with an empty message among them:");
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    print!("  reads: ");
    for message in ["hello", "", "world", "egon"] {
        sender.send_to(message.as_bytes(), receiver.local_addr()?)?;
    }
    for _ in 0..4 {
        let mut buffer = [0; 1024];
        let (count, _) = receiver.recv_from(&mut buffer)?;
        print(&buffer[..count]);
    }
    println!();
    Ok(())
}
