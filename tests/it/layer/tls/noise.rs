//! Bytes that something on the way has changed: an error or silence, and never a panic or other
//! plain bytes.

use serveloop::layer::tls::{Tls, TlsVersion};
use serveloop::protocols::Echo;

use crate::layer::tls::certificates;
use crate::layer::tls::pair::{Setup, session};
use crate::support::probe::{Log, Probe};
use crate::support::{noise, timeless};

/// How the bytes of one step are changed.
fn change(bytes: &mut Vec<u8>, how: u64) {
    if bytes.is_empty() {
        return;
    }
    let at = (how >> 8) as usize % bytes.len();
    match how % 6 {
        0 => bytes[at] ^= 1 << (how >> 4 & 7),
        1 => bytes.truncate(at),
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, (how >> 4) as u8),
        // Everything twice, or its records in another order.
        4 => bytes.extend_from_within(..),
        _ => bytes.rotate_left(at),
    }
}

#[test]
fn changed_bytes_end_in_an_error_or_in_silence() {
    let text = b"the only plain text";
    let setups = [TlsVersion::Tls12, TlsVersion::Tls13].map(|version| Setup {
        client: certificates::client_of(version),
        ..Setup::default()
    });
    let (mut failed, mut served) = (0, 0);
    for (seed, bytes) in noise(8 * 1_000).chunks_exact(8).enumerate() {
        let how = u64::from_le_bytes(bytes.try_into().unwrap());
        let log = Log::default();
        let noted = log.clone();
        let mut pair = setups[seed % 2].pair(
            move |_, _| {
                Some(Probe::new(&Log::default()).made(|transport| {
                    transport.write(text);
                    Ok(())
                }))
            },
            move |_, _| Some(Probe::new(&noted)),
        );

        // One of the first steps in one direction is changed.
        let (step, to_server) = (how >> 40 & 3, how >> 48 & 1 == 1);
        let mut count = 0;
        pair.talk_through(|bytes, way| {
            if (way == 0) == to_server && !bytes.is_empty() {
                if count == step {
                    change(bytes, how);
                }
                count += 1;
            }
        });

        let [client, server] = pair.reasons();
        assert!(
            !client.contains("panicked") && !server.contains("panicked"),
            "seed {seed}"
        );
        failed += usize::from(client != "open" || server != "open");
        for entry in log.entries() {
            let plain = entry.strip_prefix("data ");
            served += usize::from(plain.is_some());
            assert!(
                plain.is_none_or(|plain| plain.as_bytes() == text),
                "seed {seed}: {entry}"
            );
        }
    }
    // Some changes hold the handshake up, and some come after everything.
    assert!(failed > 250, "{failed} failed");
    assert!(served > 100, "{served} served");
}

/// Bytes that cannot become a record, the first of which is already wrong or not.
#[test]
fn what_is_no_record_is_answered_with_an_alert_however_it_is_cut() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x80\x2e\x01\x00\x02\x00\x15",
        b"\x16\x02\x00\x00\x05",
        b"\x16\x03\x01\x60\x00",
        // SSL 2.0 and DTLS 1.2, of which rustls knows the numbers.
        b"\x16\x00\x02\x00\x05",
        b"\x16\xfe\xfd\x00\x00\x00\x00",
        // A heartbeat.
        b"\x18\x03\x03\x00\x03\x01\x40\x00",
    ] {
        for cut in [usize::MAX, 3, 1] {
            let tls = certificates::server("localhost").build().unwrap();
            let mut server = session(Tls::server(&tls), &timeless(), |_, _| Some(Echo));
            for piece in bytes.chunks(cut.min(bytes.len())) {
                server.receive(piece);
            }

            let sent = server.sent();
            assert_eq!((sent.len(), sent[0]), (7, 21), "{bytes:x?} by {cut}");
            let reason = server.reason().unwrap().to_string();
            assert!(reason.contains("not TLS: the peer began"), "{reason}");
        }
    }
}
